"""INPUT -> the photos it holds: ``<identity>/<photo>`` folders, or a catalog file.

Lists; opens no photo. What a file really is, the reader finds out by its content.
"""

from collections import Counter
from dataclasses import dataclass, field

from pipeline.config import OperationSettings
from pipeline.records import SourcePhoto


@dataclass
class CatalogReport:
    """What was found in INPUT, in numbers; the lists may name persons and are never logged."""

    num_photos: int = 0
    num_bytes: int = 0
    num_identities: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no photos, by reason: ``hidden``, ``other_type``, ``outside_input``..."""
    ignored_extensions: Counter[str] = field(default_factory=Counter)
    """The ``other_type`` ones by extension."""
    identities_without_photos: list[str] = field(default_factory=list)


@dataclass
class Catalog:
    """All photos of INPUT."""

    photos: list[SourcePhoto]
    report: CatalogReport
    input_uri: str
    given_keys: frozenset[str] = frozenset()
    """URIs whose output key a person chose in a catalog file."""
    from_file: bool = False
    """True: INPUT is a catalog file, which says what to protect but not what exists."""


def check_paths(input_uri: str, output_uri: str) -> tuple[str, str]:
    """Normalises INPUT and OUTPUT and refuses them where one lies in the other.

    Raises:
        ConfigurationError: Equal or nested, a scheme we do not take, or INPUT is missing.
    """
    raise NotImplementedError


def read_catalog(input_uri: str, operation: OperationSettings) -> Catalog:
    """Lists the photos of INPUT, a folder or a catalog file.

    Raises:
        ConfigurationError: INPUT is missing, or the catalog file is wrong.
    """
    raise NotImplementedError
