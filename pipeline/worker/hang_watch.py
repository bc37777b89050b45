"""Ends a worker process that makes no progress, even inside C code.

Ray Data has no task timeout and a Python timer cannot fire while C code holds the interpreter;
``faulthandler``'s watchdog thread can. The ledger then counts a crashed attempt.
"""

import faulthandler

LOADING_LIMIT_S = 3600.0
"""For loading the models, which a limit per set must not count: disks and networks may be slow."""
_STDERR = 2
"""The process's own standard error, whatever ``sys.stderr`` was replaced by."""


class HangWatch:
    """Armed at every stage and epoch; when it is not armed again in time, the process exits."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def arm(self, limit_s: float | None = None) -> None:
        """Starts the limit anew; ``limit_s`` instead of the usual one, if given."""
        faulthandler.dump_traceback_later(limit_s or self._limit_s, exit=True, file=_STDERR)

    def disarm(self) -> None:
        """Nothing is watched until the next ``arm``."""
        faulthandler.cancel_dump_traceback_later()
