"""Waiting for what another thread or process does, as long as it takes and no longer."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], limit_s: float = 60.0) -> None:
    """Returns once ``true`` is; fails after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
