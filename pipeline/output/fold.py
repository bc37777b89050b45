"""Commit records become the manifest: one row per decided photo, appended, never changed.

The newest row of a source is its state; that is all OUTPUT remembers. Images are published before
their rows appear. How rows become files stands in ``manifest_parts``.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from pipeline.clock import utc_now
from pipeline.manifest_row import ManifestRow
from pipeline.output.canary import Canary
from pipeline.output.gate import Gates, runs_of
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError
from pipeline.output.manifest_parts import create_part, part_key, parts_so_far
from pipeline.output.publish import StagedDataLost, publish_commit
from pipeline.output.repeated_rows import described, rows_of_unchanged
from pipeline.output.runs import finish_run
from pipeline.output.tombstones import Tombstones
from pipeline.reasons import ReasonCode
from pipeline.records import CommitName, CommitRecord, StagedRow
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.manifest")

COMMITS_PER_PART = 500
"""Commits folded into one part: bounds memory and what a killed fold does again."""
PUBLISHERS = 64
"""Commits that are published side by side: a store that takes 50 ms a request allows one thread
seven photos a second."""

Task = TypeVar("Task")
Result = TypeVar("Result")


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
        gates: Gates | None = None,
        canary: Canary | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            may_publish: ``OutputLock.may_publish``.
            gates: Commits that must wait for one of these are left as they are; None: none must.
            canary: The gate of this run's method, to be judged here; it needs ``gates``.
        """
        self._store, self._run_id, self._may_publish = store, run_id, may_publish
        self._gates, self._canary = gates, canary
        self._ledger = Ledger(store, run_id)
        self._folded: set[CommitName] | None = None
        """Commits in the manifest, None: not looked up yet."""
        self._next_part = 0
        self._published: dict[CommitName, CommitRecord] = {}
        self._tombstones: Tombstones | None = None
        self._publishing: set[Future[CommitRecord]] = set()
        self._threads = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")

    @property
    def waiting(self) -> Sequence[CommitRecord]:
        """Commits of this run and of earlier ones whose images wait for the canary's gate."""
        return () if self._canary is None else self._canary.waiting

    @property
    def is_due(self) -> bool:
        """Whether enough waits for ``judge``."""
        return self._canary is not None and self._canary.is_due

    def take(self, name: CommitName) -> CommitRecord | None:
        """Publishes a commit of this run in the background, unless it must wait for the gate.

        The next call of the fold waits for nothing: see ``published``.

        Returns:
            The commit if it waits.
        """
        if self._canary is not None and not self._canary.is_open:
            record = self._read(name)
            assert record is not None, "the worker saw this commit"
            if self._canary.let_wait(record):
                return record
        self._publishing.add(self._threads.submit(self._publish_now, name))
        return None

    def published(self, at_most: int) -> Iterator[CommitRecord]:
        """What is published by now, waiting while more commits than these are on the way."""
        while self._publishing:
            timeout_s = None if len(self._publishing) > at_most else 0
            done, self._publishing = wait(self._publishing, timeout_s, FIRST_COMPLETED)
            if not done:
                return
            yield from [future.result() for future in done]

    def judge(self) -> None:
        """Judges what waits; if it is good, publishes and records it, that of earlier runs first.

        Raises:
            CanaryFailed: Nothing of this method is to be published.
            LockLostError: Another run took over.
        """
        assert self._canary is not None, "nothing waits without a canary"
        if not self._may_publish():
            raise LockLostError("OUTPUT's lock is lost or was not renewed: publishing stops")
        self._canary.judge()
        for earlier in sorted(runs_of(self.waiting) - {self._run_id}):
            Fold(self._store, earlier, self._may_publish)()
            finish_run(self._store, earlier, {"finished_by": self._run_id})
        # What waited counts as looked at, and its gate as closed: both are looked up anew.
        self._folded, self._gates = None, Gates(self._store)
        self()
        self._canary.waiting.clear()  # last: until here an interrupted run must not be finished

    def close(self) -> None:
        """Ends publishing in the background: what is begun is done, the rest is left."""
        self._threads.shutdown(cancel_futures=True)

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
        prepared = [*self._prepared(names)]
        records = described(self._store, [record for record, _ in prepared])
        rows = [
            _manifest_row(self._store, staged, staged.staged_key in lost)
            for record, (_, lost) in zip(records, prepared, strict=True)
            for staged in record.rows
        ]
        kept = [_name_of(record) for record in records]
        return rows + rows_of_unchanged(self._store, records), kept

    def _prepared(
        self, names: Sequence[CommitName]
    ) -> Iterator[tuple[CommitRecord, frozenset[str]]]:
        """The commits that enter the manifest now, each with the staged keys that are lost."""
        unread = [name for name in names if name not in self._published]
        records = {name: self._published[name] for name in names if name in self._published}
        to_publish = [
            record
            for record in self._side_by_side(self._read, unread)
            if not (record is None or self._is_forgotten(record) or self._must_wait(record))
        ]
        lost_keys = self._side_by_side(self._publish, to_publish)
        lost = dict(zip(map(_name_of, to_publish), lost_keys, strict=True))
        records |= {_name_of(record): record for record in to_publish}
        for name in names:
            if name in records:
                yield records[name], lost.get(name, frozenset())

    def _must_wait(self, record: CommitRecord) -> bool:
        return self._gates is not None and self._gates.must_wait(record)

    def _read(self, name: CommitName) -> CommitRecord | None:
        return self._ledger.read_commit(*name)

    def _publish_now(self, name: CommitName) -> CommitRecord:
        record = self._read(name)
        assert record is not None, "the worker saw this commit"
        if not self._publish(record):  # else the next fold writes down what is lost
            self._published[name] = record  # which is not read again
        return record

    def _side_by_side(self, function: Callable[[Task], Result], tasks: list[Task]) -> list[Result]:
        """A function's results; where one raises, nothing of the others goes on afterwards."""
        futures = [self._threads.submit(function, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)
            raise

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


def _name_of(record: CommitRecord) -> CommitName:
    return record.set_key, record.generation


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


def _manifest_row(store: Store, staged: StagedRow, is_lost: bool) -> ManifestRow:
    """The row as it enters the manifest: its image is served, or lost for good."""
    if is_lost:
        return dataclasses.replace(
            staged.row, status="failed", reason=str(ReasonCode.STAGED_DATA_LOST), output_sha256=None
        )
    if staged.staged_key is None:
        return staged.row
    return dataclasses.replace(staged.row, output_uri=store.uri_of(staged.output_key))
