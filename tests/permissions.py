"""Files that may not be read, also where the tests run as root."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION_3 = 0x20080522
_READS_AND_WRITES_ANYTHING = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Inside the block permissions of files hold for this thread and those that it starts."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    _check(libc.capget(header, before))
    reduced = (ctypes.c_uint32 * 6)(*before)
    reduced[0] &= ~_READS_AND_WRITES_ANYTHING
    _check(libc.capset(header, reduced))
    try:
        yield
    finally:
        _check(libc.capset(header, before))


@contextmanager
def forbidden(*paths: Path, mode: int = 0) -> Iterator[None]:
    """Inside the block an ordinary user runs who may not read these files and folders."""
    before = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(mode)
    try:
        with ordinary_user():
            yield
    finally:
        for path, old in zip(paths, before, strict=True):
            path.chmod(old)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be changed")
