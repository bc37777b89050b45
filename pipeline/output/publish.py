"""Committed images go where platforms serve them: copied within the store, whole and verified.

Only the driver does this, and only while it holds the lock. Knows nothing of the manifest.
"""

from collections.abc import Callable, Sequence

from pipeline.errors import PipelineError
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError
from pipeline.records import CommitRecord
from pipeline.storage.store import HashMismatch, Store


class StagedDataLost(PipelineError):  # noqa: N818 - a fact about the commit
    """A commit refers to outputs that are neither staged nor published, or have other bytes."""

    def __init__(self, staged_keys: Sequence[str]) -> None:
        super().__init__(f"{len(staged_keys)} committed images are neither staged nor published")
        self.staged_keys = frozenset(staged_keys)
        """Those of the rows that have no image."""

    def __reduce__(self) -> tuple[type["StagedDataLost"], tuple[list[str]]]:
        return type(self), (sorted(self.staged_keys),)


def publish_commit(store: Store, record: CommitRecord, may_publish: Callable[[], bool]) -> int:
    """Copies a commit's staged images to their final keys, then deletes the attempt's data.

    Doing it again changes nothing: an image that is already there with the promised hash is left.

    Args:
        record: As ``Ledger`` read it; rows with ``staged_key`` have ``output_sha256``.
        may_publish: ``OutputLock.may_publish``, asked before every image.

    Returns:
        Number of images that were copied.

    Raises:
        LockLostError: Before anything is done that another run could contradict.
        StagedDataLost: If an image can't be published any more; the others are.
    """
    num_copied, lost = 0, list[str]()
    for row in record.rows:
        staged, final, sha256 = row.staged_key, row.output_key, row.row.output_sha256
        if staged is None:
            continue
        if not may_publish():
            raise LockLostError("OUTPUT's lock is lost or was not renewed: publishing stops")
        if sha256 is None:
            raise ValueError("expected output_sha256 in a row with staged_key")
        if _holds(store, final, sha256):
            continue
        try:
            store.copy_published(staged, final, sha256)
        except (FileNotFoundError, HashMismatch):
            lost.append(staged)
            continue
        if not _holds(store, final, sha256):
            raise HashMismatch("a published image does not have the bytes that were staged")
        num_copied += 1
    if lost:
        raise StagedDataLost(lost)
    Ledger(store, record.run_id).delete_data(record.set_key, record.attempt)
    return num_copied


def _holds(store: Store, key: str, sha256: str) -> bool:
    try:
        return store.sha256_of(key) == sha256
    except FileNotFoundError:
        return False
