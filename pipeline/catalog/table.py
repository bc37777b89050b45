"""A catalog file -> its photos: CSV or Parquet with ``identity``, ``uri``, perhaps ``output_key``.

Such a file may name any place, so each URI is checked against what the operator allowed. An
inventory's columns spare the look at each photo. Knows the file's columns; how a store is listed or
opened it leaves to ``storage``.
"""

import csv
import dataclasses
import difflib
import io
import math
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from sys import intern
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.output_keys import output_key, require_output_key
from pipeline.catalog.people import Takes
from pipeline.catalog.photos import Catalog, CatalogReport, PhotoCount, Photos, side_by_side
from pipeline.errors import ConfigurationError
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.store import lies_below, normalise_uri, open_store
from pipeline.storage.uris import folder_and_name, root_of

_REQUIRED = ("identity", "uri")
_INVENTORY = ("size", "e_tag", "last_modified_date")
"""What a listing of the store would say, under the names of S3 Inventory; all of it is needed."""
_COLUMNS = (*_REQUIRED, "output_key", *_INVENTORY)
_MAX_BYTES = 2 * 1024**3
_ROWS_AT_A_TIME = 20_000


def read_catalog_file(
    uri: str,
    allow_prefixes: Sequence[str],
    output_uri: str | None = None,
    takes: Takes | None = None,
) -> Catalog:
    """Reads a catalog file and looks up every photo that it names without describing it.

    A relative ``uri`` is relative to the catalog file's folder. Without ``output_key`` the key is
    made of the identity and the path below the folder or prefix, less a first folder that is
    named as the identity. A row with ``size``, ``e_tag`` and ``last_modified_date``, as an
    inventory of a bucket has them, is believed: whoever reads the photo finds out if it is gone.

    Args:
        uri: Normalised URI of the file.
        allow_prefixes: Places, besides the file's folder, below which photos may lie.
        output_uri: Where none may lie.
        takes: People whose photos are wanted; None: everybody's.

    Raises:
        ConfigurationError: A column is missing or wrong, a URI lies elsewhere or is named twice, or
            an output key is not below ``images/`` or is named twice.
    """
    folder, name = folder_and_name(uri)
    roots = (folder, *map(normalise_uri, allow_prefixes))
    with tempfile.TemporaryFile() as file:  # its bytes need not stay in memory
        file.write(open_store(folder).read(name, max_bytes=_MAX_BYTES))
        file.seek(0)
        is_csv = name.lower().endswith(".csv")
        rows = _csv_rows(file) if is_csv else _parquet_rows(file)
        return _read_rows(rows, uri, roots, output_uri, takes)


def _read_rows(
    rows: Iterable[Mapping[str, Any]],
    uri: str,
    roots: tuple[str, ...],
    output_uri: str | None,
    takes: Takes | None,
) -> Catalog:
    given: dict[str, str] = {}
    uris = _Uris()

    def checked() -> Iterator[SourcePhoto]:
        for number, row in enumerate(rows, start=1):
            if takes is not None and not takes(_text_of_identity(row)):
                continue
            try:
                photo, has_key = _photo(row, roots, output_uri)
                if (
                    has_key
                    and given.setdefault(photo.output_key.casefold(), photo.uri) != photo.uri
                ):
                    raise ConfigurationError("this output_key stands in an earlier row")
            except ConfigurationError as error:
                raise ConfigurationError(f"catalog {uri}, row {number}: {error}") from None
            uris.add(photo.uri, number)
            yield photo

    report, photos = CatalogReport(), Photos()
    count = PhotoCount(report)
    described = checked()
    while batch := [*islice(described, _ROWS_AT_A_TIME)]:
        for photo in _look_up(batch, roots):
            photos.add(photo)
            count(photo)
            report.num_missing += photo.version == MISSING_VERSION
    if (twice := uris.first_twice()) is not None:
        raise ConfigurationError(f"catalog {uri}, row {twice}: this uri stands in an earlier row")
    return Catalog(photos, report, roots, frozenset(given.values()), from_file=True)


class _Uris:
    """Which URI of a catalog stands in two rows, at sixteen bytes a row."""

    def __init__(self) -> None:
        self._hashes, self._rows = array("q"), array("q")

    def add(self, uri: str, row: int) -> None:
        self._hashes.append(hash(uri))
        self._rows.append(row)

    def first_twice(self) -> int | None:
        """The first row that repeats an earlier one's URI; None: there is none.

        Of ten million URIs two differing ones have the same 64 bits once in 370,000 catalogs.
        """
        hashes = np.frombuffer(self._hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        repeats = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
        return self._rows[int(repeats.min())] if len(repeats) else None


def _photo(
    row: Mapping[str, Any], roots: Sequence[str], output_uri: str | None
) -> tuple[SourcePhoto, bool]:
    """The photo of a row, not looked up yet, and whether its output key was given."""
    identity, text, key = _text(row, "identity"), _text(row, "uri"), _text(row, "output_key")
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
    size, version, modified = _described(row)
    if key:
        wanted = require_output_key(key)
    else:
        path = uri[len(root.rstrip("/")) + 1 :].removeprefix(f"{identity}/")
        wanted = output_key(identity, path)
    return SourcePhoto(identity, uri, wanted, size, version, modified), bool(key)


def _described(row: Mapping[str, Any]) -> tuple[int, str, float | None]:
    """Size, version and time of an inventory's row; no version: the photo is to be looked up."""
    size, version, modified = (row.get(column) for column in _INVENTORY)
    if size in (None, "") or not version or modified in (None, ""):
        return 0, MISSING_VERSION, None
    try:
        num_bytes = int(size)
        if isinstance(modified, str):
            with suppress(ValueError):  # else seconds, which a CSV file has as text
                modified = datetime.fromisoformat(modified)
        if isinstance(modified, datetime):
            in_utc = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
            modified = in_utc.timestamp()
        modified_s = float(modified)
    except (TypeError, ValueError):
        num_bytes, modified_s = -1, math.nan
    if num_bytes < 0 or not math.isfinite(modified_s):
        raise ConfigurationError(
            "expected size in bytes, and last_modified_date in ISO 8601 or in seconds since 1970"
        )
    return num_bytes, str(version).strip().strip('"'), modified_s


def _text_of_identity(row: Mapping[str, Any]) -> str:
    """Of any row: one that is wrong is some shard's to refuse. That a URI stands in two rows is
    seen where both are of one shard."""
    return str(row.get("identity") or "").strip()


def _look_up(photos: Sequence[SourcePhoto], roots: Sequence[str]) -> list[SourcePhoto]:
    stores = {root: open_store(root) for root in roots}

    def look_up(photo: SourcePhoto) -> SourcePhoto:
        store = stores[root_of(photo.uri, roots) or roots[0]]
        info = store.info(store.key_of(photo.uri))
        if info is None:
            return photo
        return dataclasses.replace(
            photo, size_bytes=info.size, version=info.version, modified_s=info.modified
        )

    unknown = [photo for photo in photos if photo.version == MISSING_VERSION]
    if not unknown:
        return [*photos]
    found = iter(side_by_side(look_up, unknown))
    return [next(found) if photo.version == MISSING_VERSION else photo for photo in photos]


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str | int):
        raise ConfigurationError(f"{column}: expected text, got {value!r}")
    return "" if value is None else str(value).strip()


def _csv_rows(file: BinaryIO) -> Iterator[Mapping[str, Any]]:
    try:
        # Closed with the rows, also where nobody reads them all.
        with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            header = text.readline()
            delimiter = ";" if ";" in header and "," not in header else ","
            text.seek(0)
            reader = csv.DictReader(text, delimiter=delimiter, strict=True)
            _require_columns(reader.fieldnames or [])
            yield from reader
    except UnicodeDecodeError:
        raise ConfigurationError("the catalog is not UTF-8: save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise ConfigurationError(f"the catalog is no valid CSV: {error}") from None


def _parquet_rows(source: BinaryIO) -> Iterator[Mapping[str, Any]]:
    try:
        file = pq.ParquetFile(source)
        _require_columns(file.schema_arrow.names)
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=columns, use_threads=False):
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
            f"have {', '.join(_COLUMNS[2:])}"
        )
