"""A whole run without models or Ray: the real lock, ledger, publishing and manifest in order.

And a store that dies like a killed process, between any two of its changes.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pipeline.output.fold import fold_run
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.lock import OutputLock
from pipeline.output.manifest import newest_state
from pipeline.output.rows import photo_row
from pipeline.output.runs import finish_run, start_run, unfinished_runs, write_plan
from pipeline.records import CommitRecord, PhotoSet, SourcePhoto
from pipeline.storage.store import Store

T = TypeVar("T")


class Killed(BaseException):
    """The process ends here: not an Exception, so that no code can handle it."""


class MortalStore(Store):
    """A store whose process dies instead of making its n-th change, or any further one."""

    dies_at: int | None = None
    num_changes = 0
    seconds_later = 0.0
    """Added to the store's clock: the run comes so much later than the files say."""

    def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self._change(lambda: super(MortalStore, self).write(key, data, metadata))

    def create_exclusive(self, key: str, data: bytes) -> bool:
        return self._change(lambda: super(MortalStore, self).create_exclusive(key, data))

    def copy_published(self, staged_key: str, final_key: str, sha256: str) -> None:
        self._change(lambda: super(MortalStore, self).copy_published(staged_key, final_key, sha256))

    def delete(self, keys: Iterable[str]) -> None:
        for key in [*keys]:
            self._change(lambda key=key: super(MortalStore, self).delete([key]))

    def store_time(self) -> float:
        return super().store_time() + self.seconds_later

    def _change(self, change: Callable[[], T]) -> T:
        self.num_changes += 1
        if self.dies_at is not None and self.num_changes >= self.dies_at:
            raise Killed
        return change()


def source_photo(name: str, content: bytes) -> SourcePhoto:
    return SourcePhoto(
        identity=name.partition("/")[0],
        uri=f"file:///in/{name}",
        output_key=f"images/{name}.png",
        size_bytes=len(content),
        version=hashlib.md5(content).hexdigest(),
    )


def photo_set(photos: Iterable[SourcePhoto], generation: int = 0) -> PhotoSet:
    chosen = tuple(photos)
    text = ",".join(f"{photo.uri} {photo.version}" for photo in chosen)
    key = hashlib.sha256(text.encode()).hexdigest()
    return PhotoSet(key, chosen[0].identity, chosen, generation=generation)


def protect(content: bytes) -> bytes:
    return b"protected " + content


def done_record(
    store: Store, ledger: Ledger, work: PhotoSet, attempt: Attempt, inputs: Mapping[str, bytes]
) -> CommitRecord:
    """Stages the set's outputs under the attempt, as a worker does, and describes them."""
    rows: list[dict[str, Any]] = []
    for number, photo in enumerate(work.photos):
        data = protect(inputs[photo.uri.removeprefix("file:///in/")])
        staged = ledger.staged_key(work.key, attempt.id, f"{number}.png")
        store.write(staged, data)
        sha256 = hashlib.sha256(data).hexdigest()
        rows.append(photo_row(photo, "protected", work, staged_key=staged, output_sha256=sha256))
    return CommitRecord(work.key, work.generation, work.identity, "", attempt.id, "done", rows)


def run(store: Store, run_id: str, inputs: Mapping[str, bytes], computed: list[str]) -> None:
    """Protects what OUTPUT does not have yet; ``computed`` gets the names of photos worked on."""
    lock = OutputLock(store, run_id, ttl_s=60)
    lock.acquire()
    try:
        _work(store, run_id, inputs, computed, lock)
        lock.release()
    finally:
        lock._stop.set()  # a killed process has no threads either


def _work(
    store: Store, run_id: str, inputs: Mapping[str, bytes], computed: list[str], lock: OutputLock
) -> None:
    for other in unfinished_runs(store):
        fold_run(store, other, lock.may_publish)
        if other != run_id:
            finish_run(store, other, {"finished_by": run_id})
    start_run(store, run_id, {})
    known = newest_state(store)
    photos = [source_photo(name, content) for name, content in sorted(inputs.items())]
    todo = [
        photo
        for photo in photos
        if photo.uri not in known or known[photo.uri].version != photo.version
    ]
    sets = [photo_set(todo[first : first + 2]) for first in range(0, len(todo), 2)]
    write_plan(store, run_id, sets)
    ledger = Ledger(store, run_id, columns={"method_digest": "m"})
    for number, work in enumerate(sets):
        attempt = ledger.begin(work)
        if isinstance(attempt, CommitRecord):
            continue
        computed += [photo.uri for photo in work.photos]
        assert ledger.commit(done_record(store, ledger, work, attempt, inputs))
        if number == 0:
            fold_run(store, run_id, lock.may_publish)
    fold_run(store, run_id, lock.may_publish)
    finish_run(store, run_id, {"exit_code": 0})
