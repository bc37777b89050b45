"""Ends a worker process that makes no progress, even inside C code.

Ray Data has no task timeout and a Python timer cannot fire while C code holds the interpreter;
``faulthandler``'s watchdog thread can. The ledger then counts a crashed attempt.
"""

import faulthandler
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOADING_LIMIT_S = 3600.0
"""For loading the models, which a limit per set must not count: disks and networks may be slow."""
_STDERR = 2
"""The process's own standard error, whatever ``sys.stderr`` was replaced by."""


class HangWatch:
    """Armed at every stage and epoch; when it is not armed again in time, the process exits.

    There is one timer for all sets of the process: while one computes, another one whose files
    are staged is watched only once the first has ended too.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._num_watched = 0

    @contextmanager
    def watching(self, limit_s: float | None = None) -> Iterator[None]:
        """Armed inside the block, and as long as another thread is in one."""
        with self._lock:
            self._num_watched += 1
        self.arm(limit_s)
        try:
            yield
        finally:
            with self._lock:
                self._num_watched -= 1
                if not self._num_watched:
                    faulthandler.cancel_dump_traceback_later()

    def arm(self, limit_s: float | None = None) -> None:
        """Starts the limit anew; ``limit_s`` instead of the usual one, if given."""
        faulthandler.dump_traceback_later(limit_s or self._limit_s, exit=True, file=_STDERR)
