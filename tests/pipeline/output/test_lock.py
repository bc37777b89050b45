"""One run at a time, and a dead one does not block the next."""

import threading
import time

import pytest

from pipeline.errors import LockHeldError, StoreUnreachable
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import MortalStore


def later(store: Store, seconds: float) -> MortalStore:
    """The same store, seen so much later by the store's own clock."""
    other = MortalStore(store.uri)
    other.seconds_later = seconds
    return other


def abandon(lock: OutputLock) -> None:
    """As if its process was killed: no release, no heartbeat any more."""
    lock._stop.set()
    assert lock._thread is not None
    lock._thread.join()


def test_a_second_run_is_refused_and_told_who_and_since_when(store: Store) -> None:
    with OutputLock(store, "first") as lock:
        assert lock.may_publish()
        with pytest.raises(LockHeldError, match=r"run first on host .+ last seen \d s ago.+--wait"):
            OutputLock(store, "second").acquire()
        assert lock.may_publish()
    assert not lock.may_publish()
    with OutputLock(store, "second") as lock:
        assert lock.epoch == 2


def test_a_silent_lock_is_taken_over_after_its_own_ttl(store: Store) -> None:
    dead = OutputLock(store, "dead", ttl_s=120)
    dead.acquire()
    abandon(dead)
    with pytest.raises(LockHeldError):
        OutputLock(later(store, 100), "next", ttl_s=10).acquire()
    with OutputLock(later(store, 125), "next", ttl_s=1000) as lock:
        assert lock.epoch == 2
        with pytest.raises(LockLostError, match="took over"):
            dead.renew()
        assert not dead.may_publish()
        dead.release()  # too late: it must not free the other's lock
        with pytest.raises(LockHeldError, match="run next"):
            OutputLock(store, "third").acquire()


def test_an_old_holder_notices_even_after_two_takeovers(local_store: Store) -> None:
    old = OutputLock(local_store, "old")
    old.acquire()
    abandon(old)
    for number in range(2):
        lock = OutputLock(later(local_store, 1000), f"next-{number}")
        lock.acquire()
        abandon(lock)
        local_store.delete(["locks/00000002.heartbeat"])
        local_store = later(local_store, 2000 * (number + 1))
    with pytest.raises(LockLostError):
        old.renew()


def test_a_run_that_was_slow_to_take_a_stale_lock_does_not_get_an_old_epoch(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in ("first", "second"):
        with OutputLock(local_store, run_id):
            pass
    holder = OutputLock(local_store, "holder")
    holder.acquire()
    slow, looks = OutputLock(local_store, "slow"), [1]
    look = slow._newest_epoch
    monkeypatch.setattr(slow, "_holder", lambda epoch: None if epoch == 1 else "the holder")
    monkeypatch.setattr(slow, "_newest_epoch", lambda: looks.pop() if looks else look())
    with pytest.raises(LockHeldError, match="the holder"):
        slow.acquire()
    assert holder.may_publish()
    holder.renew()
    holder.release()


def test_a_heartbeat_keeps_the_lock(local_store: Store) -> None:
    with OutputLock(local_store, "first", ttl_s=1.5) as lock:
        for _ in range(6):
            time.sleep(0.3)
            with pytest.raises(LockHeldError):
                OutputLock(local_store, "second").acquire()
        assert lock.may_publish()


def test_a_run_takes_its_own_lock_over_at_once(local_store: Store) -> None:
    dead = OutputLock(local_store, "same")
    dead.acquire()
    abandon(dead)
    with OutputLock(local_store, "same") as lock:
        assert lock.epoch == 2


def test_without_renewal_publishing_stops_at_half_the_ttl(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise StoreUnreachable("no answer")

    with OutputLock(local_store, "first", ttl_s=1.6) as lock:
        assert lock.may_publish()
        with monkeypatch.context() as outage:
            outage.setattr(Store, "write", unreachable)
            time.sleep(1)
            assert not lock.may_publish()
        deadline = time.monotonic() + 20
        while not lock.may_publish():  # the thread goes on trying, and nobody took over
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_waiting_run_gets_the_lock_when_it_is_released(local_store: Store) -> None:
    first = OutputLock(local_store, "first", ttl_s=4)
    first.acquire()
    told: list[str] = []
    second = OutputLock(local_store, "second", ttl_s=4, wait=True, on_wait=told.append)
    thread = threading.Thread(target=second.acquire)
    thread.start()
    time.sleep(0.3)
    assert second.epoch is None
    first.release()
    thread.join(timeout=20)
    assert second.may_publish()
    assert "run first" in told[0]
    second.release()


def test_of_racing_runs_one_gets_the_lock(local_store: Store) -> None:
    locks = [OutputLock(local_store, f"run-{number}") for number in range(12)]
    refused: list[str] = []

    def acquire(lock: OutputLock) -> None:
        try:
            lock.acquire()
        except LockHeldError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=acquire, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lock.may_publish() for lock in locks) == 1
    assert len(refused) == 11
    for lock in locks:
        lock.release()


def test_old_epochs_are_tidied_and_none_is_used_twice(local_store: Store) -> None:
    for number in range(4):
        with OutputLock(local_store, f"run-{number}") as lock:
            assert lock.epoch == number + 1
    names = sorted(info.key for info in local_store.list("locks/"))
    assert names == ["locks/00000004.json", "locks/00000004.released"]


def test_an_outage_at_release_does_not_hide_the_run_s_own_error(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise StoreUnreachable("no answer")

    def fail() -> None:
        monkeypatch.setattr(Store, "write", unreachable)
        raise KeyError("the run's own")

    with pytest.raises(KeyError), OutputLock(local_store, "first"):
        fail()
