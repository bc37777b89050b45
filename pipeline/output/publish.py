"""Committed images go where platforms serve them: copied within the store, whole and verified.

Only the driver does this, and only while it holds the lock. Knows nothing of the manifest.
"""

import time
from collections.abc import Callable, Sequence

from pipeline.errors import PipelineError, StoreThrottled, StoreUnreachable
from pipeline.output.lock import LockLostError
from pipeline.records import CommitRecord
from pipeline.storage.store import HashMismatch, Store

PATIENCE_S = 600.0
"""How long a store that throttles or is away is waited for, per image."""


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

    Two requests an image and one a commit: a staged object is looked at, then copied by the store.
    Doing it again changes nothing: what is no longer staged, and there with the promised hash, was
    published before.

    Args:
        record: As ``Ledger`` read it; rows with ``staged_key`` have ``output_sha256``.
        may_publish: ``OutputLock.regain``, asked before every image, and before each further try
            at one.

    Returns:
        Number of images that were copied.

    Raises:
        LockLostError: Before anything is done that another run could contradict.
        EnvironmentTrouble: If the store is away for ``PATIENCE_S``.
        StagedDataLost: If an image can't be published any more; the others are.
    """
    num_copied, staged_keys, lost = 0, list[str](), list[str]()
    for row in record.rows:
        staged, final, sha256 = row.staged_key, row.output_key, row.row.output_sha256
        if staged is None:
            continue
        if sha256 is None:
            raise ValueError("expected output_sha256 in a row with staged_key")
        staged_keys.append(staged)
        try:
            _copy(store, staged, final, sha256, may_publish)
        except (FileNotFoundError, HashMismatch):
            if not _holds(store, final, sha256):
                lost.append(staged)
        else:
            num_copied += 1
    if lost:
        _require(may_publish)  # else another run may have published and tidied up meanwhile
        raise StagedDataLost(lost)
    store.delete(staged_keys)
    return num_copied


def _copy(
    store: Store, staged: str, final: str, sha256: str, may_publish: Callable[[], bool]
) -> None:
    """Asks for the lock before each try: one that is made later is another run's business."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        _require(may_publish)
        try:
            return store.copy_published(staged, final, sha256)
        except (StoreThrottled, StoreUnreachable):
            if time.monotonic() > deadline:
                raise


def _require(may_publish: Callable[[], bool]) -> None:
    if not may_publish():
        raise LockLostError("OUTPUT's lock is lost or was not renewed: publishing stops")


def _holds(store: Store, key: str, sha256: str) -> bool:
    try:
        return store.sha256_of(key) == sha256
    except FileNotFoundError:
        return False
