"""What a plan costs in requests and money; prices come from a person's file, none from here.

Knows how many requests a run makes. Knows no vendor.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from dladiff.config import Settings
from pipeline.errors import ConfigurationError
from pipeline.planning.plan import Plan

Price = Annotated[float, Field(ge=0)]

_WRITES_PER_RUN, _WRITES_PER_SET, _WRITES_PER_PHOTO = 29, 3, 2
"""To OUTPUT, counted on a bucket (a test counts again). A set: attempt, commit, listing its folder.
A photo: staging, copying."""
_READS_PER_RUN, _READS_PER_SET, _READS_PER_PHOTO = 9, 2, 1
"""A set: looking for a commit, reading it back. A photo: looking at what was staged."""
_KEYS_PER_PAGE = 1000
"""Objects that one request of a listing names."""


class Prices(Settings):
    """A price file: YAML with these keys, all in one currency."""

    currency: str = ""
    """Printed behind sums."""
    worker_hour: Price = 0.0
    """One worker for an hour: a GPU with its share of the machine, or CPUs where there is none."""
    writes_1000: Price = 0.0
    """A thousand requests that write or list: PUT, COPY, POST, LIST."""
    reads_1000: Price = 0.0
    """A thousand requests that read: GET, HEAD. Deletions are free where we know."""
    gb: Price = 0.0
    """10^9 bytes moved between store and workers, read or written."""

    def sums(self, worker_hours: float, requests: "Requests", num_bytes: int) -> dict[str, float]:
        """Money by what it is for."""
        return {
            "work": worker_hours * self.worker_hour,
            "writes": requests.writes / 1000 * self.writes_1000,
            "reads": requests.reads / 1000 * self.reads_1000,
            "traffic": num_bytes / 1e9 * self.gb,
        }


@dataclass(frozen=True)
class Requests:
    """Requests by kind, as stores price them."""

    writes: int
    """PUT, COPY, POST and LIST."""
    reads: int
    """GET and HEAD."""

    @property
    def total(self) -> int:
        return self.writes + self.reads


def read_prices(path: str | Path) -> Prices:
    """Reads a price file.

    Raises:
        ConfigurationError: It cannot be read, has an unknown key, or no number for a price.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
        return Prices.model_validate(values or {})
    except OSError as error:
        raise ConfigurationError(f"cannot read the prices in {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        trouble = error.errors()[0]
        where = ".".join(map(str, trouble["loc"])) or "the file"
        known = ", ".join(Prices.model_fields)
        raise ConfigurationError(
            f"prices in {path}, {where}: {trouble['msg']}; keys are {known}"
        ) from None


def count_requests(plan: Plan) -> Requests:
    """Requests to INPUT and OUTPUT that a run of this plan makes, if nothing goes wrong."""
    num_sets, totals = len(plan.photo_sets), plan.totals
    num_photos, num_read = totals.num_photos, totals.num_photos + totals.num_references
    num_pages = -(-(plan.counts.found + plan.counts.ignored) // _KEYS_PER_PAGE)
    num_looks = plan.catalog_report.num_looked_at  # at first bytes, each a ranged GET
    return Requests(
        writes=num_pages
        + _WRITES_PER_RUN
        + _WRITES_PER_SET * num_sets
        + _WRITES_PER_PHOTO * num_photos,
        reads=num_looks
        + num_read
        + _READS_PER_RUN
        + _READS_PER_SET * num_sets
        + _READS_PER_PHOTO * num_photos,
    )
