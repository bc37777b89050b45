"""Committed images reach the place where they are served, whole, or not at all."""

import pytest

from pipeline.errors import StoreThrottled
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.lock import LockLostError
from pipeline.output.publish import StagedDataLost, publish_commit
from pipeline.records import CommitRecord
from pipeline.storage.store import Store
from tests.pipeline.mini_run import done_record, photo_set, protect, source_photo

INPUTS = {"ann/1.jpg": b"one", "ann/2.jpg": b"two"}


def committed(store: Store) -> CommitRecord:
    work = photo_set(source_photo(name, content) for name, content in INPUTS.items())
    ledger = Ledger(store, "r")
    attempt = ledger.begin(work)
    assert isinstance(attempt, Attempt)
    assert ledger.commit(done_record(store, ledger, work, attempt, INPUTS))
    record = ledger.read_commit(work.key)
    assert record is not None
    return record


def test_published_images_are_those_committed_and_staged_ones_go(store: Store) -> None:
    record = committed(store)
    assert publish_commit(store, record, lambda: True) == 2
    for name, content in INPUTS.items():
        assert store.read(f"images/{name}.png") == protect(content)
    assert [*store.list("runs/r/data/")] == []


def test_publishing_again_changes_nothing(store: Store) -> None:
    record = committed(store)
    publish_commit(store, record, lambda: True)
    before = [*store.list("images/")]
    assert publish_commit(store, record, lambda: True) == 0
    assert [*store.list("images/")] == before


def test_an_older_image_under_the_same_key_is_replaced(local_store: Store) -> None:
    local_store.write("images/ann/1.jpg.png", b"of the photo before it changed")
    assert publish_commit(local_store, committed(local_store), lambda: True) == 2
    assert local_store.read("images/ann/1.jpg.png") == protect(b"one")


def test_without_the_lock_nothing_is_published(local_store: Store) -> None:
    record = committed(local_store)
    with pytest.raises(LockLostError):
        publish_commit(local_store, record, lambda: False)
    assert [*local_store.list("images/")] == []
    answers = iter([True, False])
    with pytest.raises(LockLostError):
        publish_commit(local_store, record, lambda: next(answers))
    assert len([*local_store.list("images/")]) == 1
    assert len([*local_store.list("runs/r/data/")]) == 2
    assert publish_commit(local_store, record, lambda: True) == 2


def test_an_image_that_the_store_refuses_for_a_while_is_waited_for_and_the_lock_asked_again(
    local_store: Store,
) -> None:
    record = committed(local_store)
    store = _BusyStore(local_store.uri)
    asked: list[int] = []
    assert publish_commit(store, record, lambda: not asked.append(1)) == 2  # type: ignore[func-returns-value]
    assert len(asked) == 2 + store.num_refused
    assert store.read("images/ann/1.jpg.png") == protect(b"one")


def test_a_lock_lost_while_the_store_is_away_stops_publishing(local_store: Store) -> None:
    record = committed(local_store)
    store = _BusyStore(local_store.uri)
    answers = iter([True, False])
    with pytest.raises(LockLostError):
        publish_commit(store, record, lambda: next(answers))
    assert [*local_store.list("images/")] == []


class _BusyStore(Store):
    """Refuses the first three copies, as a store that throttles longer than its back-off."""

    num_refused = 0

    def copy_published(self, staged_key: str, final_key: str, sha256: str) -> None:
        if self.num_refused < 3:
            self.num_refused += 1
            raise StoreThrottled("SlowDown")
        super().copy_published(staged_key, final_key, sha256)


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_lost_staged_image_is_told_and_the_others_are_published(
    local_store: Store, damage: str
) -> None:
    record = committed(local_store)
    staged = record.rows[0].staged_key
    assert staged is not None
    if damage == "deleted":
        local_store.delete([staged])
    else:
        local_store.write(staged, b"other bytes")
    with pytest.raises(StagedDataLost, match="1 committed image") as trouble:
        publish_commit(local_store, record, lambda: True)
    assert trouble.value.staged_keys == {staged}
    assert [info.key for info in local_store.list("images/")] == ["images/ann/2.jpg.png"]
