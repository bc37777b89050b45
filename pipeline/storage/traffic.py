"""What this process asks of object stores: requests, their time, and what they waited for.

Counted for the whole process, whatever store it is, by kinds of request; never a key or a name.
Read by the metrics of the driver and of Ray's workers.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

T = TypeVar("T")

Operation = Literal["read", "write", "head", "list", "copy", "delete"]
"""Kinds of request, as a store bills them: an exclusive creation is a write."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
RETRIED = ("store_throttled", "store_unreachable")
"""Causes for which a request is made again; see ``errors.EnvironmentTrouble``."""


@dataclass
class Traffic:
    """Sums since the process began."""

    requests: Counter[str] = field(default_factory=Counter)
    """By ``Operation``; each try is one."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds spent in these requests, by ``Operation``."""
    retries: Counter[str] = field(default_factory=Counter)
    """Waits before another try, by cause."""

    def less(self, earlier: "Traffic") -> "Traffic":
        """What came since ``earlier``, which is an older copy of this."""
        return Traffic(
            self.requests - earlier.requests,
            {name: each - earlier.seconds.get(name, 0.0) for name, each in self.seconds.items()},
            self.retries - earlier.retries,
        )


_sums = Traffic()
_lock = threading.Lock()


def so_far() -> Traffic:
    """A copy of this process's sums."""
    with _lock:
        return Traffic(Counter(_sums.requests), dict(_sums.seconds), Counter(_sums.retries))


def counted(operation: Operation, call: Callable[[], T]) -> T:
    """Calls, and counts it as one request, whatever comes of it."""
    begin = time.monotonic()
    try:
        return call()
    finally:
        seconds = time.monotonic() - begin
        with _lock:
            _sums.requests[operation] += 1
            _sums.seconds[operation] = _sums.seconds.get(operation, 0.0) + seconds


def count_retry(cause: str) -> None:
    """Notes that a request waits and is then made again."""
    with _lock:
        _sums.retries[cause] += 1
