"""What INPUT holds: the photos, where they may lie, and what was passed over."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from pipeline.records import SourcePhoto

Task = TypeVar("Task")
Result = TypeVar("Result")

_LOOK_UPS = 32
"""Files looked at at a time; each is one small request to the store."""
_USUAL_EXTENSION = re.compile(r"[a-z0-9]{0,4}")
_BATCH = 64
"""Files that a thread looks at in a row: handing over costs more than a look at a local file."""


@dataclass
class CatalogReport:
    """What was found in INPUT, in numbers; the lists may name persons and are never logged."""

    num_photos: int = 0
    num_bytes: int = 0
    num_identities: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Files passed over, by the reason in ``reasons.PASSED_OVER``; a hidden folder counts once."""
    ignored_extensions: Counter[str] = field(default_factory=Counter)
    """The ``other_type`` ones by extension."""
    denied: list[str] = field(default_factory=list)
    """URIs of folders that may not be read: whether photos are in there is not known."""
    num_looked_at: int = 0
    """Files whose first bytes were read, since their name tells nothing."""
    num_missing: int = 0
    """Photos that a catalog file names and that are not there; read as ``missing``."""
    identities_without_photos: list[str] = field(default_factory=list)

    def types_without_names(self) -> dict[str, int]:
        """``ignored_extensions`` for logs: what is no usual extension could be part of a name."""
        shown = Counter[str]()
        for name, number in self.ignored_extensions.items():
            shown[name if _USUAL_EXTENSION.fullmatch(name) else "other"] += number
        return dict(shown)

    @property
    def num_ignored(self) -> int:
        return self.ignored.total()


@dataclass
class Catalog:
    """All photos of INPUT, in no particular order."""

    photos: list[SourcePhoto]
    """With the output keys they would like to have (``output_keys.assign_output_keys``)."""
    report: CatalogReport
    roots: tuple[str, ...]
    """Folder URIs below which every photo lies: INPUT, and the allowed prefixes."""
    given_keys: frozenset[str] = frozenset()
    """URIs whose output key a person chose in a catalog file."""
    from_file: bool = False
    """True: INPUT is a catalog file, which says what to protect but not what exists."""
    is_out_of_sight: Callable[[str], bool] = lambda _: False
    """Says of a URI below the roots that its photo may be there although it is not listed: its
    folder may not be read, or a person left it out."""


def count_photos(report: CatalogReport, photos: list[SourcePhoto]) -> None:
    """Fills in the numbers of a report."""
    report.num_photos = len(photos)
    report.num_bytes = sum(photo.size_bytes for photo in photos)
    report.num_identities = len({photo.identity for photo in photos})


def side_by_side(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """A function's results in the order of its tasks, each of which waits for a store."""

    def of_batch(batch: list[Task]) -> list[Result]:
        return [function(task) for task in batch]

    size = min(_BATCH, 1 + len(tasks) // (4 * _LOOK_UPS))
    rest = iter(tasks)
    batches = iter(lambda: [*islice(rest, size)], [])
    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        return [result for results in pool.map(of_batch, batches) for result in results]
