"""A driver that is asked to end while tasks work ends at once, and as interrupted, not as a bug."""

import os
import signal
import threading
import time

import pytest

from pipeline.config import RunConfig
from pipeline.interruption import RunInterrupted, interruptible
from pipeline.ray_pool import RayPool, run_tasks

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_tasks(number: signal.Signals) -> None:
    timer = threading.Timer(3, os.kill, (os.getpid(), number))
    with RayPool().session(RunConfig(), 1) as size, interruptible():
        timer.start()
        started = time.monotonic()
        with pytest.raises(RunInterrupted):
            list(run_tasks(time.sleep, [120], size))
        assert time.monotonic() - started < 30
