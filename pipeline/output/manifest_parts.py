"""The manifest's files: ``manifest/run=<id>/part-<number>.parquet``, each written once.

A part names the commits in it; parts of a run are numbered and created exclusively. Only ``dladiff
forget`` rewrites one, in a single step. Knows columns and files. Knows nothing of what a row means.
"""

import io
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.manifest_row import MANIFEST_SCHEMA, RECORD_VERSION, ManifestRow
from pipeline.output.runs import check_run_id
from pipeline.records import CommitName
from pipeline.storage.store import ObjectInfo, Store

_PART = re.compile(r"manifest/run=([^/]+)/part-(\d{6})\.parquet")
_FOOTER_BYTES = 128 * 1024
"""Read of a part at first: more than the footer of one of 500 commits has."""
_READERS = 8
"""Parts that are read side by side: each is some megabytes."""
_COMMITS, _OUTPUT, _VERSION = b"dladiff_commits", b"dladiff_output", b"dladiff_record_version"


def create_part(
    store: Store,
    run_id: str,
    number: int,
    rows: Iterable[ManifestRow],
    commits: Iterable[CommitName],
) -> bool:
    """Writes part ``number`` unless it exists; says whether it has these rows."""
    schema = MANIFEST_SCHEMA.with_metadata(
        {
            **(MANIFEST_SCHEMA.metadata or {}),
            _OUTPUT: store.uri,
            _COMMITS: json.dumps([*commits]),
        }
    )
    table = pa.Table.from_pylist([row.to_columns() for row in rows], schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return store.create_exclusive(part_key(run_id, number), buffer.getvalue())


def parts_so_far(store: Store, run_id: str) -> tuple[set[CommitName], int]:
    """Commits that the run's parts hold, and the number of its next part."""
    folded: set[CommitName] = set()
    number = 0
    for info in _parts(store, run_id):
        metadata = _footer(store, info).metadata or {}
        folded.update((name, g) for name, g in json.loads(metadata.get(_COMMITS, b"[]")))
        number = max(number, _part_number(info.key) + 1)
    return folded, number


def part_keys(store: Store, run_id: str | None = None) -> Iterator[str]:
    """Keys of one run's parts, or of all runs', in the order in which each run wrote them."""
    return (info.key for info in _parts(store, run_id))


def _parts(store: Store, run_id: str | None) -> Iterator[ObjectInfo]:
    prefix = "manifest/" if run_id is None else f"manifest/run={check_run_id(run_id)}/"
    return (info for info in store.list(prefix) if _PART.fullmatch(info.key))


def _footer(store: Store, info: ObjectInfo) -> pa.Schema:
    """A part's schema with its metadata, from the end of the file: rows are not read.

    A Parquet file ends in its footer, the footer's length in four bytes and ``PAR1``.
    """
    start = max(0, info.size - _FOOTER_BYTES)
    end = store.read_part(info.key, start, info.size - start)
    length = int.from_bytes(end[-8:-4], "little") + 8
    if length > len(end):
        end = store.read_part(info.key, info.size - length, length)
    return pq.read_schema(pa.BufferReader(b"PAR1" + end[-length:]))


def part_key(run_id: str, number: int) -> str:
    """Key of a run's part."""
    return f"manifest/run={run_id}/part-{number:06d}.parquet"


def read_parts(
    store: Store,
    keys: Iterable[str],
    schema: pa.Schema,
    takes: Callable[[str], bool] | None = None,
) -> Iterator[pa.Table]:
    """``read_part`` of each, in their order; the next ones are read meanwhile.

    One after the other, the parts of ten million photos would be minutes of waiting for a store
    that takes 50 ms a request.
    """
    with ThreadPoolExecutor(_READERS, thread_name_prefix="manifest") as threads:
        ahead = deque[Future[pa.Table]]()
        try:
            for key in keys:
                ahead.append(threads.submit(read_part, store, key, schema, takes))
                if len(ahead) > _READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for one in ahead:
                one.cancel()


def read_part(
    store: Store,
    key: str,
    schema: pa.Schema,
    takes: Callable[[str], bool] | None = None,
) -> pa.Table:
    """The columns of ``schema``; one that an older part lacks is null.

    Args:
        takes: Says of an identity whether its rows are wanted; None: all rows. Of a part without
            such a person no other column is unpacked.
    """
    file = pq.ParquetFile(pa.BufferReader(store.read(key)))
    metadata = file.schema_arrow.metadata or {}
    version = int(metadata.get(_VERSION, b"0"))
    if version > RECORD_VERSION:
        raise PipelineError(
            f"{store.uri_of(key)} has record version {version}, this program knows "
            f"{RECORD_VERSION}: use the dladiff version that wrote it"
        )
    names = [name for name in schema.names if name in file.schema_arrow.names]
    wanted = None if takes is None else _rows_of(file, takes)
    if wanted is not None and not pc.any(wanted).as_py():
        return schema.remove_metadata().empty_table()
    # A thread of Arrow's pool that lets go of Python bytes while the interpreter ends aborts it.
    table = file.read(columns=names, use_threads=False)
    if wanted is not None:
        table = table.filter(wanted)
    columns = [
        table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(len(table), column.type)
        for column in schema
    ]
    table = pa.table(columns, schema=schema.remove_metadata())
    return _moved(table, metadata.get(_OUTPUT, b"").decode(), store.uri)


def _rows_of(file: pq.ParquetFile, takes: Callable[[str], bool]) -> pa.ChunkedArray:
    identities = file.read(columns=["identity"], use_threads=False)["identity"]
    names = [name for name in pc.unique(identities).to_pylist() if takes(name)]
    return pc.is_in(identities, value_set=pa.array(names, identities.type))


def drop_from_part(
    store: Store, key: str, identities: Collection[str], set_keys: Collection[str]
) -> int:
    """Rewrites a part without rows of these people, in one step; says how many it had.

    A part that becomes empty stays, so that its number is not taken again.

    Args:
        set_keys: Their photo sets: the part names no commits of these any more.
    """
    file = pq.ParquetFile(pa.BufferReader(store.read(key)))
    table = file.read(use_threads=False)
    metadata = dict(table.schema.metadata or {})
    names = json.loads(metadata.get(_COMMITS, b"[]"))
    kept_names = [name for name in names if name[0] not in set_keys]
    of_these = pc.is_in(table["identity"], value_set=pa.array(sorted(identities), pa.string()))
    kept = table.filter(pc.invert(of_these))
    if len(kept) < len(table) or len(kept_names) < len(names):
        metadata[_COMMITS] = json.dumps(kept_names).encode()
        buffer = io.BytesIO()
        pq.write_table(kept.replace_schema_metadata(metadata), buffer, compression="zstd")
        store.write(key, buffer.getvalue())
    return len(table) - len(kept)


def _part_number(key: str) -> int:
    match = _PART.fullmatch(key)
    assert match is not None, "the key comes from part_keys"
    return int(match.group(2))


def _moved(table: pa.Table, old_root: str, new_root: str) -> pa.Table:
    """With ``output_uri`` where OUTPUT lies now: people rename and copy whole folders."""
    if not old_root or old_root == new_root or "output_uri" not in table.column_names:
        return table
    old, new = old_root.rstrip("/") + "/", new_root.rstrip("/") + "/"
    uris = table["output_uri"]
    moved = pc.binary_join_element_wise(new, pc.utf8_slice_codeunits(uris, len(old)), "")
    index = table.column_names.index("output_uri")
    return table.set_column(
        index, table.schema.field(index), pc.if_else(pc.starts_with(uris, old), moved, uris)
    )
