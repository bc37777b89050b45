"""Commit records become the manifest: one row per decided photo, appended, never changed.

The newest row of a source is its state; that is all OUTPUT remembers. Images are published before
their rows appear. How rows become files stands in ``manifest_parts``.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from sys import intern
from typing import Any

import pyarrow as pa

from pipeline.ledger import Ledger
from pipeline.lock import LockLostError
from pipeline.manifest_parts import create_part, part_key, part_keys, parts_so_far, read_part
from pipeline.publish import StagedDataLost, publish_commit
from pipeline.records import MANIFEST_SCHEMA, CommitRecord
from pipeline.rows import STAGED_KEY
from pipeline.runs import utc_now
from pipeline.storage import Store

_log = logging.getLogger("dladiff.manifest")

COMMITS_PER_PART = 500
"""Commits folded into one part: bounds memory and what a killed fold does again."""

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
        folded, number = parts_so_far(store, run_id)
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
        if create_part(store, run_id, number, rows, names):
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
        _, number = parts_so_far(store, run_id)
        if create_part(store, run_id, number, full, ()):
            return part_key(run_id, number)


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
    tables = [read_part(store, key, schema) for key in part_keys(store)]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table.sort_by("committed_at") if "committed_at" in schema.names else table


def newest_state(store: Store) -> dict[str, SourceState]:
    """The newest decision on every source photo, by ``source_uri``.

    ``deferred`` rows decide nothing and never hide a decision.
    """
    states: dict[str, SourceState] = {}
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in _STATE_COLUMNS])
    root = store.uri.rstrip("/") + "/"
    for key in part_keys(store):
        for row in read_part(store, key, schema).to_pylist():
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
