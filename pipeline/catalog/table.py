"""A catalog file -> its photos: CSV or Parquet with ``identity``, ``uri``, perhaps ``output_key``.

Such a file may name any place, so each URI is checked against what the operator allowed. Knows
the file's columns; how a store is listed or opened it leaves to ``storage``.
"""

import csv
import difflib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from sys import intern
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.output_keys import output_key, require_output_key
from pipeline.catalog.people import Takes
from pipeline.catalog.photos import Catalog, CatalogReport, count_photos, side_by_side
from pipeline.errors import ConfigurationError
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.store import lies_below, normalise_uri, open_store
from pipeline.storage.uris import folder_and_name, root_of

_REQUIRED = ("identity", "uri")
_COLUMNS = (*_REQUIRED, "output_key")
_MAX_BYTES = 2 * 1024**3


def read_catalog_file(
    uri: str,
    allow_prefixes: Sequence[str],
    output_uri: str | None = None,
    takes: Takes | None = None,
) -> Catalog:
    """Reads a catalog file and looks up every photo that it names.

    A relative ``uri`` is relative to the catalog file's folder. Without ``output_key`` the key is
    made of the identity and the path below the folder or prefix, less a first folder that is
    named as the identity.

    Args:
        uri: Normalised URI of the file.
        allow_prefixes: Places, besides the file's folder, below which photos may lie.
        output_uri: Where none may lie.
        takes: People whose photos are wanted; None: everybody's.

    Raises:
        ConfigurationError: A column is missing, a URI lies elsewhere or is named twice, or an
            output key is not below ``images/`` or is named twice.
    """
    folder, name = folder_and_name(uri)
    roots = (folder, *map(normalise_uri, allow_prefixes))
    content = open_store(folder).read(name, max_bytes=_MAX_BYTES)
    rows = _csv_rows(content) if name.lower().endswith(".csv") else _parquet_rows(content)
    photos: dict[str, SourcePhoto] = {}
    given: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if takes is not None and not takes(_text_of_identity(row)):
            continue
        try:
            photo, has_key = _photo(row, roots, output_uri)
            if photo.uri in photos:
                raise ConfigurationError("this uri stands in an earlier row")
            if has_key and given.setdefault(photo.output_key.casefold(), photo.uri) != photo.uri:
                raise ConfigurationError("this output_key stands in an earlier row")
        except ConfigurationError as error:
            raise ConfigurationError(f"catalog {uri}, row {number}: {error}") from None
        photos[photo.uri] = photo
    report = CatalogReport()
    found = _look_up(photos.values(), roots)
    report.num_missing = sum(photo.version == MISSING_VERSION for photo in found)
    count_photos(report, found)
    return Catalog(found, report, roots, frozenset(given.values()), from_file=True)


def _photo(
    row: Mapping[str, Any], roots: Sequence[str], output_uri: str | None
) -> tuple[SourcePhoto, bool]:
    """The photo of a row, not looked up yet, and whether its output key was given."""
    identity, text, key = (_text(row, column) for column in _COLUMNS)
    if not identity or not text:
        raise ConfigurationError("identity and uri must not be empty")
    identity = intern(identity)  # many photos share it
    absolute = text.startswith(("/", "~")) or "://" in text
    uri = normalise_uri(text if absolute else f"{roots[0]}/{text}")
    root = root_of(uri, roots)
    if root is None or not lies_below(uri, root):
        raise ConfigurationError(
            f"{uri} lies neither below the catalog's folder nor below an allowed prefix: add "
            "--allow-prefix"
        )
    if output_uri is not None and lies_below(uri, output_uri):
        raise ConfigurationError(f"{uri} lies in OUTPUT")
    if key:
        return SourcePhoto(identity, uri, require_output_key(key), 0, MISSING_VERSION), True
    path = uri[len(root.rstrip("/")) + 1 :].removeprefix(f"{identity}/")
    return SourcePhoto(identity, uri, output_key(identity, path), 0, MISSING_VERSION), False


def _text_of_identity(row: Mapping[str, Any]) -> str:
    """Of any row: one that is wrong is some shard's to refuse. That a URI stands in two rows is
    seen where both are of one shard."""
    return str(row.get("identity") or "").strip()


def _look_up(photos: Collection[SourcePhoto], roots: Sequence[str]) -> list[SourcePhoto]:
    stores = {root: open_store(root) for root in roots}

    def look_up(photo: SourcePhoto) -> SourcePhoto:
        store = stores[root_of(photo.uri, roots) or roots[0]]
        info = store.info(store.key_of(photo.uri))
        if info is None:
            return photo
        return SourcePhoto(
            photo.identity, photo.uri, photo.output_key, info.size, info.version, info.modified
        )

    return side_by_side(look_up, [*photos])


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str | int):
        raise ConfigurationError(f"{column}: expected text, got {value!r}")
    return "" if value is None else str(value).strip()


def _csv_rows(content: bytes) -> Iterable[Mapping[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError("the catalog is not UTF-8: save it as 'CSV UTF-8'") from None
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    _require_columns(reader.fieldnames or [])
    try:
        yield from reader
    except csv.Error as error:
        raise ConfigurationError(f"the catalog is no valid CSV: {error}") from None


def _parquet_rows(content: bytes) -> Iterable[Mapping[str, Any]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _require_columns(file.schema_arrow.names)
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns, use_threads=False):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"the catalog is no readable Parquet file: {error}") from None


def _require_columns(names: Sequence[str]) -> None:
    for name in names:
        near = difflib.get_close_matches(name, _COLUMNS, 1, 0.8)
        if near and name not in _COLUMNS and near[0] not in names:
            raise ConfigurationError(f"catalog column {name!r}: did you mean {near[0]!r}?")
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise ConfigurationError(
            f"the catalog lacks the column {missing[0]!r}: it needs identity and uri, and may "
            "have output_key"
        )
