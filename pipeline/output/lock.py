"""OUTPUT's lock: one run at a time publishes and folds, and a dead one does not block the next.

Knows ``locks/<epoch>.json``, created exclusively; the highest epoch holds. Its heartbeat object is
aged by the store's own timestamps, so that clocks of machines need not agree.
"""

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pipeline.clock import utc_now
from pipeline.errors import EnvironmentTrouble, LockHeldError, PipelineError
from pipeline.output.runs import check_run_id
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.lock")

_EPOCH = re.compile(r"locks/(\d{8})\.json")


def _now() -> float:
    """Seconds that also pass while the machine sleeps, unlike the monotonic clock's."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True)
class LockHolder:
    """The run that holds, or left behind, the newest lock."""

    run_id: str
    host: str
    silent_s: float
    """Seconds since its last sign of life, by this machine's clock: good to a few seconds."""
    ttl_s: float
    """Seconds of silence after which the lock is free."""

    @property
    def is_alive(self) -> bool:
        """Whether it was heard of within the lock's life; a run of an earlier pod was not."""
        return self.silent_s <= self.ttl_s


def read_lock(store: Store) -> LockHolder | None:
    """The holder of OUTPUT's lock; None: it is free, or was never taken. Writes nothing."""
    epoch = _newest_epoch(store)
    found = _held(store, epoch) if epoch else None
    if found is None:
        return None
    silent_s = max(0.0, time.time() - (found.last_sign or time.time()))
    return LockHolder(found.run_id, found.host, round(silent_s, 1), found.ttl_s)


@dataclass(frozen=True)
class _Held:
    """A lock that was not given back, as the store has it."""

    run_id: str
    host: str
    ttl_s: float
    """The holder's: by it the holder stops publishing."""
    last_sign: float | None
    """When the store last heard of it, by the store's clock."""


def _held(store: Store, epoch: int) -> _Held | None:
    """Who took this epoch and keeps it; None: given back, or tidied away by a newer one."""
    if store.exists(_key(epoch, "released")):
        return None
    sign = store.info(_key(epoch, "heartbeat")) or store.info(_key(epoch))
    try:
        record = json.loads(store.read(_key(epoch)))
    except FileNotFoundError:
        return None
    return _Held(
        record["run_id"], record["host"], float(record["ttl_s"]), sign.modified if sign else None
    )


def _newest_epoch(store: Store) -> int:
    found = (_EPOCH.fullmatch(info.key) for info in store.list("locks/"))
    return max((int(match.group(1)) for match in found if match), default=0)


def _key(epoch: int, ending: str = "json") -> str:
    return f"locks/{epoch:08d}.{ending}"


class LockLostError(PipelineError):
    """This run no longer holds OUTPUT's lock, or could not renew it: it must not publish."""


class OutputLock:
    """The lock of one OUTPUT for one run; a context manager that acquires and releases."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        ttl_s: float = 120.0,
        *,
        wait: bool = False,
        on_wait: Callable[[str], None] | None = None,
        clock: Callable[[], float] = _now,
    ) -> None:
        """Takes nothing yet.

        Args:
            run_id: A lock that the same run left behind is taken over at once.
            ttl_s: Seconds without a heartbeat after which a lock counts as left behind.
            wait: Wait for another run instead of refusing.
            on_wait: Told once per poll who holds the lock, for a person who waits.
            clock: Seconds by which publishing stops where the lock could not be renewed.
        """
        self._store, self._run_id, self._ttl_s = store, check_run_id(run_id), ttl_s
        self._wait, self._on_wait, self._now = wait, on_wait, clock
        self._epoch: int | None = None
        self._renewed_at = 0.0
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._regaining = threading.Lock()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def epoch(self) -> int | None:
        """Number of the lock that this run took, None while it holds none."""
        return self._epoch

    def acquire(self) -> None:
        """Takes the lock and keeps it alive from a background thread until ``release``.

        Raises:
            LockHeldError: If another run holds it; names that run, its host and the age of its
                last sign of life.
        """
        poll_s = min(5.0, self._ttl_s / 10)
        while True:
            began = self._now()
            epoch = _newest_epoch(self._store)
            held = self._holder(epoch) if epoch else None
            if held is None and self._take(epoch + 1, began):
                return
            if held is not None:
                if not self._wait:
                    raise LockHeldError(f"{held}; --wait waits for it")
                if self._on_wait is not None:
                    self._on_wait(held)
                time.sleep(poll_s)

    def renew(self) -> None:
        """Gives a sign of life now; the background thread does it every eighth of the TTL.

        Raises:
            LockLostError: If another run took over meanwhile.
        """
        if self._epoch is None:
            raise LockLostError("this run holds no lock")
        began = self._now()  # before the request: its answer may be late
        with self._store.in_haste():  # an answer that comes minutes later renews nothing
            if self._lost or _newest_epoch(self._store) > self._epoch:
                self._lost = True
                raise LockLostError("another run took over OUTPUT's lock")
            self._store.write(_key(self._epoch, "heartbeat"), self._record())
        self._renewed_at = began

    def may_publish(self) -> bool:
        """False once the lock was lost, released, or not renewed for half its TTL."""
        return (
            self._epoch is not None
            and not self._lost
            and self._now() - self._renewed_at < self._ttl_s / 2
        )

    def regain(self, patience_s: float = 600.0) -> bool:
        """Whether this run may publish, once the store that was away answers again.

        A lock that could not be renewed is still ours if nobody took it: that is looked up before
        anything is published. Safe to call from many threads, of which one asks the store.

        Args:
            patience_s: How long the store is waited for.
        """
        deadline = self._now() + patience_s
        while not self.may_publish():
            if self._lost or self._epoch is None or self._now() > deadline:
                return False
            with self._regaining:
                if self.may_publish():
                    return True
                try:
                    self.renew()
                except LockLostError:
                    return False
                except EnvironmentTrouble as error:
                    _log.warning("waiting for the store of OUTPUT: %s", error.cause)
                    self._stop.wait(min(5.0, self._ttl_s / 8))
        return True

    def release(self) -> None:
        """Gives the lock back; the next run need not wait for the TTL."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        epoch, self._epoch = self._epoch, None
        if epoch is not None and not self._lost:
            try:
                with self._store.in_haste():
                    self._store.write(_key(epoch, "released"), self._record())
            except EnvironmentTrouble as error:
                # The TTL frees it; an error here would hide why the run ends.
                _log.warning("the lock could not be released: %s", error.cause)

    def _take(self, epoch: int, began: float) -> bool:
        if not self._store.create_exclusive(_key(epoch), self._record()):
            return False
        if _newest_epoch(self._store) > epoch:
            # Slow since it looked: others took this epoch, and newer ones, and tidied it away.
            self._store.delete([_key(epoch)])
            return False
        self._epoch, self._renewed_at, self._lost = epoch, began, False
        self._delete_older(epoch)
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        self._thread.start()
        return True

    def _holder(self, epoch: int) -> str | None:
        """Who holds this epoch, for a person; None if the lock is free to take over."""
        held = _held(self._store, epoch)
        if held is None or held.run_id == self._run_id:
            return None
        now = self._store.store_time()
        age_s = now - (held.last_sign or now)
        if age_s > held.ttl_s:
            _log.warning("taking over the lock of run %s, silent for %.0f s", held.run_id, age_s)
            return None
        return (
            f"run {held.run_id} on host {held.host} holds OUTPUT, last seen {max(age_s, 0):.0f} s "
            f"ago (a lock silent for {held.ttl_s:.0f} s is free)"
        )

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._ttl_s / 8):
            try:
                self.renew()
            except LockLostError as error:
                _log.error("%s", error)
                return
            except EnvironmentTrouble as error:
                _log.warning("the lock could not be renewed: %s", error.cause)

    def _delete_older(self, epoch: int) -> None:
        """Tidies up; the newest epoch stays for ever, so that no epoch is ever taken twice."""
        self._store.delete(
            info.key
            for info in self._store.list("locks/")
            if (name := info.key.removeprefix("locks/"))[:8].isdigit() and int(name[:8]) < epoch
        )

    def _record(self) -> bytes:
        record: dict[str, Any] = {
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "ttl_s": self._ttl_s,
            "at": utc_now(),
            "token": secrets.token_hex(8),
        }
        return json.dumps(record, sort_keys=True).encode()
