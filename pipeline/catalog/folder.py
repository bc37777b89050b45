"""INPUT -> the photos it holds: ``<identity>/<photo>`` folders, or a catalog file.

Lists; opens no photo. What a file really is, the reader finds out by its content.
"""

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline.catalog.output_keys import output_key
from pipeline.catalog.photos import LOOK_UPS, Catalog, CatalogReport, count_photos
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.store import ObjectInfo, Skipped, Store, lies_below, normalise_uri, open_store
from pipeline.storage.uris import folder_and_name, root_of

PHOTO_EXTENSIONS = frozenset(
    ("jpg", "jpeg", "png", "webp", "heic", "heif", "avif", "bmp", "tif", "tiff", "gif")
)
CATALOG_EXTENSIONS = frozenset(("csv", "parquet", "pq"))
_SYSTEM_FOLDERS = frozenset(("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found"))
"""Folders in which network drives and archivers keep thumbnails and deleted copies."""


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
        from pipeline.catalog.table import read_catalog_file

        return read_catalog_file(source, operation.allow_prefixes, output_uri)
    return _list_folder(open_store(source))


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


def _photo(store: Store, info: ObjectInfo) -> SourcePhoto:
    identity, separator, path = info.key.partition("/")
    if not separator:
        identity, path = name_of_folder(store.uri), info.key
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
    folder, name = folder_and_name(uri)
    if folder.endswith(":/"):  # a bare bucket
        return False
    return open_store(folder).info(name) is not None


def _is_hidden(key: str) -> bool:
    parts = key.split("/")
    return any(part.startswith(".") for part in parts) or not _SYSTEM_FOLDERS.isdisjoint(parts[:-1])


def _extension(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def name_of_folder(uri: str) -> str:
    """The identity of photos that lie directly in INPUT."""
    return uri.rstrip("/").rpartition("/")[2] or "photos"
