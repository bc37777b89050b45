"""Commit records become the manifest: one row per decided photo, appended, never changed.

The newest row of a source is its state; that is all OUTPUT remembers. Images are published before
their rows appear. How rows become files stands in ``manifest_parts``.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from pipeline.clock import utc_now
from pipeline.manifest_row import ManifestRow
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError
from pipeline.output.manifest import newest_rows_of
from pipeline.output.manifest_parts import create_part, part_key, parts_so_far
from pipeline.output.publish import StagedDataLost, publish_commit
from pipeline.reasons import ReasonCode
from pipeline.records import CommitRecord, StagedRow, UnchangedPhoto
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.manifest")

COMMITS_PER_PART = 500
"""Commits folded into one part: bounds memory and what a killed fold does again."""


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
        found = (ledger.read_commit(set_key, generation) for set_key, generation in names)
        records = [record for record in found if record is not None]
        rows: list[ManifestRow] = []
        for record in records:
            rows += _published_rows(store, record, may_publish, result)
        rows += _repeated_rows(store, records)
        if not may_publish():
            raise LockLostError("OUTPUT's lock is lost or was not renewed: folding stops")
        if create_part(store, run_id, number, rows, names):
            result.num_commits += len(names)
            result.statuses.update(row.status for row in rows)


def write_part(store: Store, run_id: str, rows: Sequence[ManifestRow]) -> str | None:
    """Appends rows that no commit decided: ``source_gone``, ``deferred``, skipped unread.

    Args:
        rows: As ``records.photo_row`` makes them; ``run_id`` and ``committed_at`` are filled in.

    Returns:
        Key of the new part, None if there were no rows.
    """
    if not rows:
        return None
    now = utc_now()
    full = [
        dataclasses.replace(row, run_id=run_id, committed_at=row.committed_at or now)
        for row in rows
    ]
    while True:
        _, number = parts_so_far(store, run_id)
        if create_part(store, run_id, number, full, ()):
            return part_key(run_id, number)


def _published_rows(
    store: Store, record: CommitRecord, may_publish: Callable[[], bool], result: FoldResult
) -> list[ManifestRow]:
    """A commit's rows for the manifest, after its images are where the rows say."""
    lost: frozenset[str] = frozenset()
    try:
        result.num_published += publish_commit(store, record, may_publish)
    except StagedDataLost as error:
        # Somebody deleted data of this run. It must not block OUTPUT for ever: these photos are
        # failed, which a person sees and `--retry-failed` repairs.
        _log.error("%s", error)
        lost = error.staged_keys
    return [_manifest_row(store, staged, staged.staged_key in lost) for staged in record.rows]


def _repeated_rows(store: Store, records: Sequence[CommitRecord]) -> list[ManifestRow]:
    """The earlier rows of photos whose content is the same, under their new versions."""
    uris = {photo.source_uri for record in records for photo in record.unchanged}
    earlier = newest_rows_of(store, uris) if uris else {}
    return [
        _repeated_row(record, photo, earlier.get(photo.source_uri))
        for record in records
        for photo in record.unchanged
    ]


def _repeated_row(
    record: CommitRecord, photo: UnchangedPhoto, earlier: ManifestRow | None
) -> ManifestRow:
    if earlier is None or earlier.source_sha256 != photo.source_sha256:
        # Somebody deleted parts of the manifest: as for lost data, a person sees and retries it.
        earlier = ManifestRow(
            identity=record.identity,
            source_uri=photo.source_uri,
            source_version=photo.source_version,
            source_sha256=photo.source_sha256,
            status="failed",
            reason=str(ReasonCode.EARLIER_ROW_LOST),
        )
    return dataclasses.replace(
        earlier,
        source_version=photo.source_version,
        set_key=record.set_key,
        run_id=record.run_id,
        attempt=record.attempt,
        committed_at=record.committed_at,
        seconds=record.seconds / record.num_photos,
        gpu_seconds=record.gpu_seconds / record.num_photos,
    )


def _manifest_row(store: Store, staged: StagedRow, is_lost: bool) -> ManifestRow:
    """The row as it enters the manifest: its image is served, or lost for good."""
    if is_lost:
        return dataclasses.replace(
            staged.row, status="failed", reason=str(ReasonCode.STAGED_DATA_LOST), output_sha256=None
        )
    if staged.staged_key is None:
        return staged.row
    return dataclasses.replace(staged.row, output_uri=store.uri_of(staged.output_key))
