"""INPUT -> the photos it holds: ``<identity>/<photo>`` folders, or a catalog file.

Lists; opens no photo. What a file really is, the reader finds out by its content.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError
from pipeline.output_keys import output_key
from pipeline.records import SourcePhoto
from pipeline.storage import ObjectInfo, Skipped, Store, lies_below, normalise_uri, open_store

PHOTO_EXTENSIONS = frozenset(
    ("jpg", "jpeg", "png", "webp", "heic", "heif", "avif", "bmp", "tif", "tiff", "gif")
)
MISSING_VERSION = ""
"""Version of a photo that a catalog file names and that is not there."""
CATALOG_EXTENSIONS = frozenset(("csv", "parquet", "pq"))
LOOK_UPS = 32
"""Photos looked up at a time; each is one small request to the store."""
_SYSTEM_FOLDERS = frozenset(("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found"))
"""Folders in which network drives and archivers keep thumbnails and deleted copies."""


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


def check_paths(input_uri: str, output_uri: str) -> tuple[str, str]:
    """Normalises INPUT and OUTPUT and refuses them where one lies in the other.

    Beside a catalog file OUTPUT may lie; then only no photo may come from OUTPUT
    (``read_catalog`` looks).

    Raises:
        ConfigurationError: Equal or nested, or a scheme we do not take.
    """
    source, output = normalise_uri(input_uri), normalise_uri(output_uri)
    if lies_below(source, output):
        raise ConfigurationError(
            f"INPUT {source} lies in OUTPUT {output}: protected photos would be protected again "
            "and originals might be overwritten. Choose an OUTPUT outside of INPUT."
        )
    if lies_below(output, source):
        raise ConfigurationError(
            f"OUTPUT {output} lies in INPUT {source}: the next run would take the protected "
            "photos for originals. Choose an OUTPUT outside of INPUT."
        )
    return source, output


def read_catalog(
    input_uri: str, operation: OperationSettings, output_uri: str | None = None
) -> Catalog:
    """Lists the photos of INPUT, a folder or a catalog file.

    The first folder below INPUT is the identity, whatever lies deeper. Photos directly in INPUT
    belong to one identity named as INPUT itself, as a person expects who points at an album.
    Hidden files (``.name``) and files without a photo's extension are counted, not read.

    Args:
        input_uri: A normalised or plain path or URI.
        operation: Its ``allow_prefixes`` hold for catalog files.
        output_uri: Where photos of a catalog file must not lie.

    Raises:
        ConfigurationError: INPUT is missing, or the catalog file is wrong.
    """
    source = normalise_uri(input_uri)
    if _extension(source) in CATALOG_EXTENSIONS and _is_file(source):
        from pipeline.catalog_file import read_catalog_file

        return read_catalog_file(source, operation.allow_prefixes, output_uri)
    return _list_folder(open_store(source))


def root_of(uri: str, roots: Iterable[str]) -> str | None:
    """The longest of ``roots`` below which ``uri`` is written; None: below none."""
    below = [root for root in roots if uri.startswith(root.rstrip("/") + "/")]
    return max(below, key=len, default=None)


def find_gone(catalog: Catalog, known: Iterable[str]) -> list[str]:
    """Which of the known photos INPUT no longer holds.

    Photos from elsewhere, of a run with another INPUT, are none of its business. A catalog file
    that no longer names a photo has not deleted it: only one that is really not there is gone.

    Args:
        catalog: As read now.
        known: URIs of photos that OUTPUT remembers and that were not gone already.
    """
    there = {photo.uri for photo in catalog.photos if photo.version != MISSING_VERSION}
    absent = [uri for uri in known if uri not in there and root_of(uri, catalog.roots) is not None]
    if not catalog.from_file:
        return absent
    stores = {root: open_store(root) for root in catalog.roots}

    def is_gone(uri: str) -> bool:
        store = stores[root_of(uri, catalog.roots) or catalog.roots[0]]
        return not store.exists(store.key_of(uri))

    with ThreadPoolExecutor(LOOK_UPS) as pool:
        return [uri for uri, gone in zip(absent, pool.map(is_gone, absent), strict=True) if gone]


def _list_folder(store: Store) -> Catalog:
    _require_folder(store)
    report, skipped = CatalogReport(), Skipped()
    photos: list[SourcePhoto] = []
    num_objects = 0
    for info in store.list("", skipped):
        num_objects += 1
        if info.key.endswith("/"):
            continue  # the empty object with which some tools mark a folder of a bucket
        if _is_hidden(info.key):
            report.ignored["hidden"] += 1
        elif (extension := _extension(info.key)) not in PHOTO_EXTENSIONS:
            report.ignored["other_type"] += 1
            report.ignored_extensions[extension] += 1
        else:
            photos.append(_photo(store, info))
    if not num_objects and not store.uri.startswith("file:"):
        # A bucket knows no empty folders: most likely the prefix is misspelt.
        raise ConfigurationError(f"INPUT {store.uri} holds no objects: check its spelling")
    report.ignored.update(skipped)
    identities = {photo.identity for photo in photos}
    report.identities_without_photos = [
        name for name in store.folders("") if name not in identities and not _is_hidden(f"{name}/")
    ]
    count_photos(report, photos)
    return Catalog(photos, report, roots=(store.uri,))


def count_photos(report: CatalogReport, photos: list[SourcePhoto]) -> None:
    """Fills in the numbers of a report."""
    report.num_photos = len(photos)
    report.num_bytes = sum(photo.size_bytes for photo in photos)
    report.num_identities = len({photo.identity for photo in photos})


def _photo(store: Store, info: ObjectInfo) -> SourcePhoto:
    identity, separator, path = info.key.partition("/")
    if not separator:
        identity, path = _own_name(store.uri), info.key
    return SourcePhoto(
        identity=sys.intern(identity),
        uri=store.uri_of(info.key),
        output_key=output_key(identity, path),
        size_bytes=info.size,
        version=info.version,
        modified_s=info.modified,
    )


def _require_folder(store: Store) -> None:
    if store.root_exists():
        return
    if not store.uri.startswith("file:"):
        raise ConfigurationError(f"INPUT {store.uri}: there is no such bucket, or no access to it")
    if _is_file(store.uri):
        raise ConfigurationError(
            f"INPUT {store.uri} is a file: give the folder that holds it, or a catalog "
            "(.csv, .parquet)"
        )
    raise ConfigurationError(f"INPUT {store.uri} does not exist: check its spelling")


def _is_file(uri: str) -> bool:
    parent, _, name = uri.rpartition("/")
    if parent.endswith(":/"):  # directly below the root, or a bare bucket
        return False
    return open_store(parent).info(name) is not None


def _is_hidden(key: str) -> bool:
    parts = key.split("/")
    return any(part.startswith(".") for part in parts) or not _SYSTEM_FOLDERS.isdisjoint(parts[:-1])


def _extension(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def _own_name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or "photos"
