"""SIGTERM and Ctrl-C as one exception in the main thread, so that what is decided gets folded."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RunInterrupted(BaseException):
    """The process was asked to end. Not an ``Exception``: no handler for errors may catch it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM and SIGINT raise ``RunInterrupted`` once; enter anew after ``ray.init``,
    which installs a handler of its own. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise RunInterrupted

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
