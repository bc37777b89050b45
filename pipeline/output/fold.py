"""Commit records become the manifest: one row per decided photo, appended, never changed.

The newest row of a source is its state; that is all OUTPUT remembers. Images are published before
their rows appear. How rows become files stands in ``manifest_parts``.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence

from pipeline.clock import utc_now
from pipeline.manifest_row import ManifestRow
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError
from pipeline.output.manifest import newest_rows_of
from pipeline.output.manifest_parts import create_part, part_key, parts_so_far
from pipeline.output.publish import StagedDataLost, publish_commit
from pipeline.output.tombstones import Tombstones
from pipeline.reasons import ReasonCode
from pipeline.records import CommitName, CommitRecord, StagedRow, UnchangedPhoto
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.manifest")

COMMITS_PER_PART = 500
"""Commits folded into one part: bounds memory and what a killed fold does again."""


class Fold:
    """Brings the commits of one run into the manifest, as often as it is asked to.

    Killed anywhere and done again, by this run or another, it loses no row and repeats none:
    each part names the commits in it, and parts are numbered and created exclusively, so that
    of two folds that know the same parts only one adds the next.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        may_publish: Callable[[], bool] = lambda: True,
        *,
        must_wait: Callable[[CommitRecord], bool] = lambda _: False,
    ) -> None:
        """Reads nothing yet.

        Args:
            may_publish: ``OutputLock.may_publish``.
            must_wait: ``Gates.hold``: these commits are left for a later fold, by another object.
        """
        self._store, self._run_id, self._may_publish = store, run_id, may_publish
        self._must_wait = must_wait
        self._ledger = Ledger(store, run_id)
        self._folded: set[CommitName] | None = None
        """Commits in the manifest, None: not looked up yet."""
        self._next_part = 0
        self._published: dict[CommitName, CommitRecord] = {}
        self._tombstones: Tombstones | None = None

    def published(self, record: CommitRecord) -> None:
        """Notes a commit whose images the caller has just published: it is not read again."""
        self._published[record.set_key, record.generation] = record

    def __call__(self) -> int:
        """Publishes and records every commit that the manifest does not have yet.

        Returns:
            How many it added.

        Raises:
            LockLostError: If the lock was lost; what is in the manifest stays right.
        """
        num_added = 0
        while pending := self._pending():
            for start in range(0, len(pending), COMMITS_PER_PART):
                names = pending[start : start + COMMITS_PER_PART]
                if not self._add_part(names):
                    break  # another fold was faster: look again
                num_added += len(names)
        return num_added

    def _pending(self) -> list[CommitName]:
        """Commits that the manifest does not have."""
        if self._folded is None:
            self._folded, self._next_part = parts_so_far(self._store, self._run_id)
        known = self._folded
        return [name for name in self._ledger.commit_names() if name not in known]

    def _add_part(self, names: Sequence[CommitName]) -> bool:
        """Writes the next part, unless another fold has written it."""
        rows, kept = self._rows_of(names)
        if not self._may_publish():
            raise LockLostError("OUTPUT's lock is lost or was not renewed: folding stops")
        for name in names:
            self._published.pop(name, None)
        if kept and not create_part(self._store, self._run_id, self._next_part, rows, kept):
            self._folded = None
            return False
        assert self._folded is not None, "_pending has looked it up"
        self._folded.update(names)
        self._next_part += bool(kept)
        return True

    def _rows_of(self, names: Sequence[CommitName]) -> tuple[list[ManifestRow], list[CommitName]]:
        """The commits' rows for the manifest, after their images are where the rows say.

        Returns:
            The rows, and the commits in them: those of forgotten people are deleted instead, those
            that wait are left.
        """
        rows: list[ManifestRow] = []
        records: list[CommitRecord] = []
        for name in names:
            record = self._published.get(name)
            lost = frozenset[str]()
            if record is None:
                record = self._ledger.read_commit(*name)
                if record is None or self._is_forgotten(record):
                    continue
                if self._must_wait(record):
                    continue
                lost = self._publish(record)
            records.append(record)
            rows += [
                _manifest_row(self._store, staged, staged.staged_key in lost)
                for staged in record.rows
            ]
        kept = [(record.set_key, record.generation) for record in records]
        return rows + _repeated_rows(self._store, records), kept

    def _is_forgotten(self, record: CommitRecord) -> bool:
        """Whether its person was forgotten since a worker began; then nothing of it stays."""
        if self._tombstones is None:
            self._tombstones = Tombstones(self._store)
        if not self._tombstones.hold(record.identity):
            return False
        self._ledger.delete_set(record.set_key)
        return True

    def _publish(self, record: CommitRecord) -> frozenset[str]:
        """Publishes what nobody has told of; returns the staged keys whose data is lost."""
        try:
            publish_commit(self._store, record, self._may_publish)
        except StagedDataLost as error:
            # Somebody deleted data of this run. It must not block OUTPUT for ever: these photos
            # are failed, which a person sees and `--retry-failed` repairs.
            _log.error("%s", error)
            return error.staged_keys
        return frozenset()


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
