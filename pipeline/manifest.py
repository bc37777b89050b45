"""Commit records become the manifest: one row per decided photo, appended, never changed.

The newest row of a source is its state; that is all OUTPUT remembers. Knows
``manifest/run=<id>/part-*.parquet``; images are published before their rows appear.
"""

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from sys import intern
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.ledger import Ledger
from pipeline.lock import LockLostError
from pipeline.publish import StagedDataLost, publish_commit
from pipeline.records import MANIFEST_SCHEMA, RECORD_VERSION, CommitRecord
from pipeline.rows import OUTPUT_KEY, STAGED_KEY, check_fields
from pipeline.runs import check_run_id, utc_now
from pipeline.storage import Store

_log = logging.getLogger("dladiff.manifest")

COMMITS_PER_PART = 500
"""Commits folded into one part: bounds memory and what a killed fold does again."""

_PART = re.compile(r"manifest/run=([^/]+)/part-(\d{6})\.parquet")
_COMMITS, _OUTPUT, _VERSION = b"dladiff_commits", b"dladiff_output", b"dladiff_record_version"
_LOST = {
    "status": "failed",
    "reason": "staged_data_lost",
    "output_uri": None,
    "output_sha256": None,
    STAGED_KEY: None,
}
_STATE_COLUMNS = [
    "identity", "source_uri", "source_version", "source_sha256", "output_uri", "output_sha256",
    "status", "reason", "method_digest", "run_id", "committed_at",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceState:
    """What OUTPUT remembers of a source photo: its newest decision."""

    identity: str
    version: str
    """Source version that was decided on."""
    sha256: str | None
    """Of the original, None where it was never read."""
    method_digest: str | None
    status: str
    reason: str | None
    output_key: str | None
    """Key below OUTPUT of the protected photo, None if there is none."""
    output_sha256: str | None
    run_id: str
    committed_at: str


@dataclass
class FoldResult:
    """What one fold added to the manifest."""

    num_commits: int = 0
    num_published: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Rows by status."""


def fold_run(
    store: Store, run_id: str, may_publish: Callable[[], bool] = lambda: True
) -> FoldResult:
    """Publishes and records every commit of a run that the manifest does not have yet.

    Killed anywhere and done again, by this run or another, it loses no row and repeats none:
    each part names the commits in it, and parts are numbered and created exclusively, so that
    of two folds that know the same parts only one adds the next.

    Args:
        may_publish: ``OutputLock.may_publish``.

    Raises:
        LockLostError: If the lock was lost; what is in the manifest stays right.
    """
    ledger, result = Ledger(store, run_id), FoldResult()
    while True:
        folded, number = _parts_so_far(store, run_id)
        pending = (name for name in ledger.commit_names() if name not in folded)
        names = [*islice(pending, COMMITS_PER_PART)]
        if not names:
            return result
        rows: list[dict[str, Any]] = []
        for set_key, generation in names:
            record = ledger.read_commit(set_key, generation)
            if record is not None:
                rows += _published_rows(store, record, may_publish, result)
        if not may_publish():
            raise LockLostError("OUTPUT's lock is lost or was not renewed: folding stops")
        if _create_part(store, run_id, number, rows, names):
            result.num_commits += len(names)
            result.statuses.update(row["status"] for row in rows)


def write_part(store: Store, run_id: str, rows: Sequence[dict[str, Any]]) -> str | None:
    """Appends rows that no commit decided: ``source_gone``, ``deferred``, skipped unread.

    Args:
        rows: As ``rows.photo_row`` makes them; ``run_id`` and ``committed_at`` are filled in.

    Returns:
        Key of the new part, None if there were no rows.

    Raises:
        ValueError: For a row with a field that is no column.
    """
    if not rows:
        return None
    now = utc_now()
    full = [
        {**row, "run_id": run_id, "committed_at": row.get("committed_at") or now} for row in rows
    ]
    while True:
        _, number = _parts_so_far(store, run_id)
        if _create_part(store, run_id, number, full, ()):
            return _part_key(run_id, number)


def read_manifest(store: Store, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of all runs, oldest decision first, with ``output_uri`` below this store's root.

    Args:
        columns: Names to read, None for all.

    Raises:
        PipelineError: If a part was written by a newer version.
    """
    schema = MANIFEST_SCHEMA
    if columns is not None:
        schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    tables = [_read_part(store, key, schema) for key in _part_keys(store)]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table.sort_by("committed_at") if "committed_at" in schema.names else table


def newest_state(store: Store) -> dict[str, SourceState]:
    """The newest decision on every source photo, by ``source_uri``.

    ``deferred`` rows decide nothing and never hide a decision.
    """
    states: dict[str, SourceState] = {}
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in _STATE_COLUMNS])
    root = store.uri.rstrip("/") + "/"
    for key in _part_keys(store):
        for row in _read_part(store, key, schema).to_pylist():
            known = states.get(row["source_uri"])
            is_older = known is not None and row["committed_at"] < known.committed_at
            if row["status"] != "deferred" and not is_older:
                states[row["source_uri"]] = _state(row, root)
    return states


def _published_rows(
    store: Store, record: CommitRecord, may_publish: Callable[[], bool], result: FoldResult
) -> list[dict[str, Any]]:
    """A commit's rows for the manifest, after its images are where the rows say."""
    try:
        result.num_published += publish_commit(store, record, may_publish)
    except StagedDataLost as error:
        # Somebody deleted data of this run. It must not block OUTPUT for ever: these photos are
        # failed, which a person sees and `--retry-failed` repairs.
        _log.error("%s", error)
        return [
            {**row, **_LOST} if row.get(STAGED_KEY) in error.staged_keys else row
            for row in record.rows
        ]
    return record.rows


def _manifest_row(store: Store, row: dict[str, Any]) -> dict[str, Any]:
    """Without the two extra fields of commit records; their place takes ``output_uri``."""
    check_fields(row)
    columns = {name: value for name, value in row.items() if name in MANIFEST_SCHEMA.names}
    if row.get(STAGED_KEY):
        columns["output_uri"] = store.uri_of(row[OUTPUT_KEY])
    return columns


def _create_part(
    store: Store,
    run_id: str,
    number: int,
    rows: Iterable[dict[str, Any]],
    commits: Iterable[tuple[str, int]],
) -> bool:
    """Writes part ``number`` unless it exists; says whether it has these rows."""
    schema = MANIFEST_SCHEMA.with_metadata(
        {
            **(MANIFEST_SCHEMA.metadata or {}),
            _OUTPUT: store.uri,
            _COMMITS: json.dumps([*commits]),
        }
    )
    table = pa.Table.from_pylist([_manifest_row(store, row) for row in rows], schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return store.create_exclusive(_part_key(run_id, number), buffer.getvalue())


def _parts_so_far(store: Store, run_id: str) -> tuple[set[tuple[str, int]], int]:
    """Commits that the run's parts hold, and the number of its next part."""
    folded: set[tuple[str, int]] = set()
    number = 0
    for key in _part_keys(store, run_id):
        metadata = pq.read_schema(pa.BufferReader(store.read(key))).metadata or {}
        folded.update((name, g) for name, g in json.loads(metadata.get(_COMMITS, b"[]")))
        number = max(number, _part_number(key) + 1)
    return folded, number


def _part_keys(store: Store, run_id: str | None = None) -> Iterator[str]:
    prefix = "manifest/" if run_id is None else f"manifest/run={check_run_id(run_id)}/"
    for info in store.list(prefix):
        if _PART.fullmatch(info.key):
            yield info.key


def _part_key(run_id: str, number: int) -> str:
    return f"manifest/run={run_id}/part-{number:06d}.parquet"


def _part_number(key: str) -> int:
    match = _PART.fullmatch(key)
    assert match is not None, "the key comes from _part_keys"
    return int(match.group(2))


def _read_part(store: Store, key: str, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema``; one that an older part lacks is null."""
    file = pq.ParquetFile(pa.BufferReader(store.read(key)))
    metadata = file.schema_arrow.metadata or {}
    version = int(metadata.get(_VERSION, b"0"))
    if version > RECORD_VERSION:
        raise PipelineError(
            f"{store.uri_of(key)} has record version {version}, this program knows "
            f"{RECORD_VERSION}: use the dladiff version that wrote it"
        )
    table = file.read(columns=[name for name in schema.names if name in file.schema_arrow.names])
    columns = [
        table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(len(table), column.type)
        for column in schema
    ]
    table = pa.table(columns, schema=schema.remove_metadata())
    return _moved(table, metadata.get(_OUTPUT, b"").decode(), store.uri)


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


def _state(row: dict[str, Any], images_root: str) -> SourceState:
    uri = row["output_uri"]
    return SourceState(
        identity=intern(row["identity"]),
        version=row["source_version"],
        sha256=row["source_sha256"],
        method_digest=_intern(row["method_digest"]),
        status=intern(row["status"]),
        reason=_intern(row["reason"]),
        output_key=uri[len(images_root) :] if uri and uri.startswith(images_root) else None,
        output_sha256=row["output_sha256"],
        run_id=intern(row["run_id"]),
        committed_at=row["committed_at"],
    )


def _intern(text: str | None) -> str | None:
    """Millions of states share few such texts."""
    return None if text is None else intern(text)
