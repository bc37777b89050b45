"""What is to do: the catalog less what OUTPUT already holds, as photo sets.

Knows the newest manifest row of every source. Reads no photo and writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.catalog import Catalog, CatalogReport
from pipeline.config import OnMethodChange, RunConfig
from pipeline.options import PlanCounts
from pipeline.records import PhotoSet


@dataclass
class PhotoCounts:
    """Photos of the catalog by what the plan decided for them."""

    found: int = 0
    unchanged: int = 0
    """Same version and method, or kept under another method on request."""
    new: int = 0
    changed: int = 0
    """Another version; the worker may still find the same content."""
    method_changed: int = 0
    retry: int = 0
    deferred: int = 0
    """Left undecided by an earlier run."""
    standing_failures: int = 0
    """Failed or quarantined before and not asked for again; part of ``unchanged``."""
    ignored: int = 0
    gone: int = 0


@dataclass
class Plan:
    """The work of one run."""

    photo_sets: list[PhotoSet]
    counts: PhotoCounts
    gone_rows: list[dict[str, Any]]
    """Manifest rows ``source_gone``, still without run id and time."""
    catalog_report: CatalogReport
    method_digest: str
    method_differences: list[str] = field(default_factory=list)

    def summary(self) -> PlanCounts:
        """The same in numbers that a reporter shows."""
        raise NotImplementedError

    def to_table(self) -> pa.Table:
        """One row per photo set, as kept in ``runs/<id>/plan.parquet``."""
        raise NotImplementedError


def make_plan(
    catalog: Catalog,
    states: Mapping[str, Any],
    config: RunConfig,
    method_digest: str,
    *,
    output_uri: str,
    on_method_change: OnMethodChange = "refuse",
    retry_failed: bool = False,
    retry_quarantined: bool = False,
    previous_method: Mapping[str, Any] | None = None,
    generations: Mapping[str, int] | None = None,
) -> Plan:
    """Decides for each photo whether it is to do, and forms photo sets of those that are.

    Args:
        catalog: All photos of INPUT.
        states: ``manifest.newest_state``: the newest decision by source URI.
        config: Of this run.
        method_digest: ``config.method_digest`` of this run.
        output_uri: OUTPUT, to read keys off the output URIs of ``states``.
        on_method_change: What to do with photos that another method protected.
        retry_failed: Do failed photos again.
        retry_quarantined: Do quarantined photos again.
        previous_method: ``method`` settings that OUTPUT was made with, to show the difference.
        generations: Highest generation by set key that this run id has already decided; a set
            planned again gets the next one.

    Raises:
        ConfigurationError: OUTPUT was made with another method and ``refuse`` holds, or INPUT
            lost all its photos at once.
    """
    raise NotImplementedError
