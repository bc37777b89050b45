"""What INPUT holds: the photos, where they may lie, and what was passed over."""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.records import SourcePhoto
from pipeline.storage.spool import PeopleSpool, part_of

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


class Photos(Collection[SourcePhoto]):
    """All photos of INPUT by parts of the people; many of them lie on disk, not in memory."""

    def __init__(self, photos: Iterable[SourcePhoto] = ()) -> None:
        self._spool = PeopleSpool[SourcePhoto]()
        # Sixteen bytes a photo: which part a URI belongs to, by its hash in this process.
        self._hashes, self._parts = array("q"), array("H")
        self._sorted: tuple[NDArray[np.int64], NDArray[np.int16]] | None = None
        for photo in photos:
            self.add(photo)

    def add(self, photo: SourcePhoto) -> None:
        """Takes one more photo; its URI is a new one."""
        part = part_of(photo.identity)
        self._spool.add(part, photo)
        self._hashes.append(hash(photo.uri))
        self._parts.append(part)
        self._sorted = None

    def part(self, number: int) -> list[SourcePhoto]:
        """The photos of one part of the people (``spool.part_of``)."""
        return self._spool.part(number)

    def parts_of(self, uris: Sequence[str]) -> list[int]:
        """The part of each URI's photo; -1: there is no such photo."""
        hashes, parts = self._by_hash()
        if not len(hashes):
            return [-1] * len(uris)
        wanted = np.fromiter(map(hash, uris), np.int64, len(uris))
        places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        found: list[int] = np.where(hashes[places] == wanted, parts[places], -1).tolist()
        return found

    def __len__(self) -> int:
        return len(self._spool)

    def __iter__(self) -> Iterator[SourcePhoto]:
        return iter(self._spool)

    def __contains__(self, photo: object) -> bool:
        return isinstance(photo, SourcePhoto) and photo in self.part(part_of(photo.identity))

    def _by_hash(self) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        if self._sorted is None:
            hashes = np.frombuffer(self._hashes, np.int64)
            order = np.argsort(hashes)
            parts = np.frombuffer(self._parts, np.uint16).astype(np.int16)
            self._sorted = hashes[order], parts[order]
        return self._sorted


@dataclass
class Catalog:
    """All photos of INPUT, in no particular order."""

    photos: Collection[SourcePhoto]
    """With the output keys they would like to have (``output_keys.assign_output_keys``); as
    ``Photos`` where somebody read INPUT."""
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


class PhotoCount:
    """Counts the photos of a listing for its report, while they come."""

    def __init__(self, report: CatalogReport) -> None:
        self._report = report
        self.identities = set[str]()

    def __call__(self, photo: SourcePhoto) -> None:
        self._report.num_photos += 1
        self._report.num_bytes += photo.size_bytes
        self.identities.add(photo.identity)
        self._report.num_identities = len(self.identities)


def side_by_side(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """A function's results in the order of its tasks, each of which waits for a store."""

    def of_batch(batch: list[Task]) -> list[Result]:
        return [function(task) for task in batch]

    size = min(_BATCH, 1 + len(tasks) // (4 * _LOOK_UPS))
    rest = iter(tasks)
    batches = iter(lambda: [*islice(rest, size)], [])
    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        return [result for results in pool.map(of_batch, batches) for result in results]
