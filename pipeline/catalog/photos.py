"""What INPUT holds: the photos, where they may lie, and what was passed over."""

from collections import Counter
from dataclasses import dataclass, field

from pipeline.records import SourcePhoto

LOOK_UPS = 32
"""Photos looked up at a time; each is one small request to the store."""


@dataclass
class CatalogReport:
    """What was found in INPUT, in numbers; the lists may name persons and are never logged."""

    num_photos: int = 0
    num_bytes: int = 0
    num_identities: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no photos, by reason: ``hidden``, ``other_type``, and what the store
    skipped: ``link_leaves_folder``, ``link_loop``, ``undecodable_name``, ``not_a_file``."""
    ignored_extensions: Counter[str] = field(default_factory=Counter)
    """The ``other_type`` ones by extension."""
    num_missing: int = 0
    """Photos that a catalog file names and that are not there; read as ``missing``."""
    identities_without_photos: list[str] = field(default_factory=list)

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


def count_photos(report: CatalogReport, photos: list[SourcePhoto]) -> None:
    """Fills in the numbers of a report."""
    report.num_photos = len(photos)
    report.num_bytes = sum(photo.size_bytes for photo in photos)
    report.num_identities = len({photo.identity for photo in photos})
