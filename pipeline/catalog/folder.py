"""INPUT -> the photos it holds: ``<identity>/<photo>`` folders, or a catalog file.

Lists; decodes no photo. What a file really is, the reader finds out by its content.
"""

import difflib
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from pipeline.catalog.looking import photos_among
from pipeline.catalog.names import Choice, extension, hidden_part, is_hidden
from pipeline.catalog.output_keys import output_key
from pipeline.catalog.people import Takes, shard_takes
from pipeline.catalog.photos import Catalog, CatalogReport, PhotoCount, Photos, side_by_side
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError, EnvironmentTrouble
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.access import no_such_bucket
from pipeline.storage.store import ObjectInfo, Skipped, Store, lies_below, normalise_uri, open_store
from pipeline.storage.uris import folder_and_name, root_of

PHOTO_EXTENSIONS = frozenset(
    ("jpg", "jpeg", "png", "webp", "heic", "heif", "avif", "bmp", "tif", "tiff", "gif")
)
"""Of names that promise a photo: such a file is taken for one without a look, and gets a row
whatever it holds."""
CATALOG_EXTENSIONS = frozenset(("csv", "parquet", "pq"))
_SHOWN_NAMES = 5
"""Folders that are named where INPUT is not there."""


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
    input_uri: str,
    operation: OperationSettings,
    output_uri: str | None = None,
    known: Callable[[], Collection[str]] = frozenset,
) -> Catalog:
    """Lists the photos of INPUT, a folder or a catalog file.

    The first folder below INPUT is the identity, whatever lies deeper. Photos directly in INPUT
    belong to one identity named as INPUT itself, as a person expects who points at an album.
    What is hidden or a system's is counted, not opened; of any other file without a photo's
    extension the first bytes are read.

    Args:
        input_uri: A normalised or plain path or URI.
        operation: Its ``allow_prefixes`` hold for catalog files, ``include`` and ``exclude`` for
            folders.
        output_uri: Where photos of a catalog file must not lie.
        known: URIs of files that need no look since OUTPUT has a decision on them.

    Raises:
        ConfigurationError: INPUT is missing, or the catalog file is wrong.
    """
    source = normalise_uri(input_uri)
    choice = Choice(operation.include, operation.exclude)
    if extension(source) in CATALOG_EXTENSIONS and _is_file(source):
        from pipeline.catalog.table import read_catalog_file

        if choice != Choice():
            raise ConfigurationError(
                "--include and --exclude choose among the files of a folder: a catalog file names "
                "its photos itself"
            )
        takes = shard_takes(operation.shard)
        return read_catalog_file(source, operation.allow_prefixes, output_uri, takes)
    return _list_folder(open_store(source), choice, known, shard_takes(operation.shard))


def find_gone(catalog: Catalog, known: Iterable[str]) -> list[str]:
    """Which of the known photos INPUT no longer holds.

    Photos from elsewhere, of a run with another INPUT, are none of its business, nor are those in
    folders that may not be read, and those that a person leaves out this time. A catalog file
    that no longer names a photo has not deleted it: only one that is really not there is gone.

    Args:
        catalog: As read now.
        known: URIs of photos that OUTPUT remembers and that were not gone already.
    """
    there = {photo.uri for photo in catalog.photos if photo.version != MISSING_VERSION}
    absent = [
        uri
        for uri in known
        if uri not in there
        and root_of(uri, catalog.roots) is not None
        and not catalog.is_out_of_sight(uri)
    ]
    if not catalog.from_file:
        return absent
    stores = {root: open_store(root) for root in catalog.roots}

    def is_gone(uri: str) -> bool:
        store = stores[root_of(uri, catalog.roots) or catalog.roots[0]]
        return not store.exists(store.key_of(uri))

    return [uri for uri, gone in zip(absent, side_by_side(is_gone, absent), strict=True) if gone]


def _list_folder(
    store: Store, choice: Choice, known: Callable[[], Collection[str]], takes: Takes | None
) -> Catalog:
    _require_folder(store)
    report, skipped = CatalogReport(), Skipped(tolerates_denied=True)
    photos, others, hidden = Photos(), list[ObjectInfo](), set[str]()
    count = PhotoCount(report)
    num_of_others = 0

    def take(info: ObjectInfo) -> None:
        photo = _photo(store, info)
        photos.add(photo)
        count(photo)

    for info in store.list("", skipped, is_hidden):
        if takes is not None and not takes(_identity(store, info.key)):
            num_of_others += 1
        elif (part := hidden_part(info.key)) is not None:
            hidden.add(part)  # only a bucket lists what is in there
        elif not choice.takes(info.key):
            report.ignored["left_out"] += 1
        elif extension(info.key) in PHOTO_EXTENSIONS:
            take(info)
        elif not info.size:
            report.ignored["empty"] += 1
        else:
            others.append(info)
    looked_at = photos_among(store, others, known, report)
    for info in looked_at:
        take(info)
    _count_others(report, others, looked_at)
    denied = frozenset(key for key in skipped.denied if choice.takes(f"{key}/"))
    report.denied = [store.uri_of(key) for key in sorted(denied)]
    report.ignored.update({"denied": len(denied), "hidden": len(hidden)}, **skipped)
    report.ignored = +report.ignored
    found_none = not photos and not report.num_ignored and not num_of_others
    if found_none and not store.uri.startswith("file:"):
        # A bucket knows no empty folders: most likely the prefix is misspelt.
        raise ConfigurationError(f"INPUT {store.uri} holds no objects: {_near(store.uri)}")
    report.identities_without_photos = [
        name
        for name in store.folders("")
        if name not in count.identities
        and name not in denied
        and choice.takes(f"{name}/")
        and not is_hidden(name)
        and (takes is None or takes(name))
    ]

    def is_out_of_sight(uri: str) -> bool:
        key = store.key_of(uri)
        return not choice.takes(key) or not denied.isdisjoint(_with_folders(key))

    return Catalog(photos, report, roots=(store.uri,), is_out_of_sight=is_out_of_sight)


def _count_others(
    report: CatalogReport, files: Sequence[ObjectInfo], photos: Sequence[ObjectInfo]
) -> None:
    """Counts those of the files that were looked at and are no photos."""
    keys = {info.key for info in photos}
    for info in files:
        if info.key not in keys:
            report.ignored["other_type"] += 1
            report.ignored_extensions[extension(info.key)] += 1


def _with_folders(key: str) -> list[str]:
    """A key and those of all folders above it."""
    parts = key.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts) + 1)]


def _identity(store: Store, key: str) -> str:
    identity, separator, _ = key.partition("/")
    return identity if separator else name_of_folder(store.uri)


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
        raise no_such_bucket(store, "INPUT")
    if _is_file(store.uri):
        raise ConfigurationError(
            f"INPUT {store.uri} is a file: give the folder that holds it, or a catalog "
            "(.csv, .parquet)"
        )
    raise ConfigurationError(f"INPUT {store.uri} does not exist: {_near(store.uri)}")


def _near(uri: str) -> str:
    """What lies where somebody looked for a folder that is not there, for a person."""
    folder, name = folder_and_name(uri)
    names: list[str] = []
    if not folder.endswith(":/"):  # beside a bare bucket there is nothing to look at
        with suppress(FileNotFoundError, EnvironmentTrouble):
            names = [each for each in open_store(folder).folders("") if not is_hidden(each)]
    if not names:
        return "check its spelling"
    near = difflib.get_close_matches(name, names, 1, 0.6)
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"check its spelling{meant}; {folder} holds {shown}"


def _is_file(uri: str) -> bool:
    folder, name = folder_and_name(uri)
    if folder.endswith(":/"):  # a bare bucket
        return False
    return open_store(folder).info(name) is not None


def name_of_folder(uri: str) -> str:
    """The identity of photos that lie directly in INPUT."""
    return uri.rstrip("/").rpartition("/")[2] or "photos"
