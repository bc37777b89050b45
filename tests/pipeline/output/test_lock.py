"""One run at a time, and a dead one does not block the next."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import LockHeldError, StoreUnreachable
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.storage.store import ObjectInfo, Skipped, Store
from tests.pipeline.mortal_run import MortalStore
from tests.waiting import until


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


class SlowStore(Store):
    """Sees at its first look what lay there long ago: a first lock, given back."""

    num_looks = 0

    def list(
        self,
        prefix: str = "",
        skipped: Skipped | None = None,
        is_hidden: Callable[[str], bool] = lambda _: False,
    ) -> Iterator[ObjectInfo]:
        self.num_looks += 1
        if self.num_looks == 1:
            return iter([ObjectInfo("locks/00000001.json", 1, "v", 0.0)])
        return super().list(prefix, skipped, is_hidden)

    def exists(self, key: str) -> bool:
        return key == "locks/00000001.released" or super().exists(key)


def test_a_run_that_was_slow_to_take_a_stale_lock_does_not_get_an_old_epoch(
    local_store: Store,
) -> None:
    for run_id in ("first", "second"):
        with OutputLock(local_store, run_id):
            pass
    holder = OutputLock(local_store, "holder")
    holder.acquire()
    with pytest.raises(LockHeldError, match="run holder"):
        OutputLock(SlowStore(local_store.uri), "slow").acquire()
    assert holder.may_publish()
    holder.renew()
    holder.release()


def test_a_thread_gives_signs_of_life(local_store: Store) -> None:
    with OutputLock(local_store, "first", ttl_s=0.8):
        seen = set[str]()

        def two_signs() -> bool:
            if (sign := local_store.info("locks/00000001.heartbeat")) is not None:
                seen.add(sign.version)
            return len(seen) == 2

        until(two_signs)


def test_a_sign_of_life_keeps_the_lock(local_store: Store) -> None:
    with OutputLock(local_store, "first") as lock:
        lock.renew()
        taken = Path(local_store.uri.removeprefix("file://")) / "locks/00000001.json"
        os.utime(taken, (0, 0))
        with pytest.raises(LockHeldError):
            OutputLock(local_store, "second").acquire()


def test_a_run_takes_its_own_lock_over_at_once(local_store: Store) -> None:
    dead = OutputLock(local_store, "same")
    dead.acquire()
    abandon(dead)
    with OutputLock(local_store, "same") as lock:
        assert lock.epoch == 2


def test_without_renewal_publishing_stops_at_half_the_ttl(local_store: Store) -> None:
    now = [1000.0]
    with OutputLock(local_store, "first", ttl_s=100, clock=lambda: now[0]) as lock:
        now[0] += 49
        assert lock.may_publish()
        now[0] += 2
        assert not lock.may_publish()
        lock.renew()  # nobody took over
        assert lock.may_publish()


def test_an_outage_does_not_end_the_signs_of_life(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def unreachable(*arguments: object) -> None:
        tries.append(arguments)
        raise StoreUnreachable("no answer")

    with OutputLock(local_store, "first", ttl_s=0.8):
        with monkeypatch.context() as outage:
            outage.setattr(Store, "write", unreachable)
            until(lambda: len(tries) >= 2)
        before = local_store.info("locks/00000001.heartbeat")
        until(lambda: local_store.info("locks/00000001.heartbeat") != before)


def test_a_lock_that_an_outage_made_stale_is_regained_unless_another_run_took_it(
    local_store: Store,
) -> None:
    now = [1000.0]
    lock = OutputLock(local_store, "first", ttl_s=100, clock=lambda: now[0])
    lock.acquire()
    abandon(lock)
    now[0] += 300
    assert not lock.may_publish()
    assert lock.regain()
    assert lock.may_publish()
    now[0] += 300
    with OutputLock(later(local_store, 1000), "second"):
        assert not lock.regain()
    assert not lock.regain()


def test_many_threads_that_wait_for_a_stale_lock_ask_the_store_once(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [1000.0], list[str]()
    lock = OutputLock(local_store, "first", ttl_s=100, clock=lambda: now[0])
    lock.acquire()
    abandon(lock)
    now[0] += 300
    write = Store.write

    def counted(store: Store, key: str, data: bytes) -> None:
        asked.append(key)
        write(store, key, data)

    monkeypatch.setattr(Store, "write", counted)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: lock.regain(), range(8)))
    assert asked == ["locks/00000001.heartbeat"]
    lock.release()


def test_a_waiting_run_gets_the_lock_when_it_is_released(local_store: Store) -> None:
    first = OutputLock(local_store, "first", ttl_s=4)
    first.acquire()
    told: list[str] = []
    second = OutputLock(local_store, "second", ttl_s=4, wait=True, on_wait=told.append)
    thread = threading.Thread(target=second.acquire)
    thread.start()
    until(lambda: told)
    assert second.epoch is None
    first.release()
    thread.join(timeout=60)
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
