"""Tells the three kinds of trouble apart: photo, set, environment (pipeline.md).

A trouble of the environment is never committed, since another machine or another hour may do
better; whatever else a set's computation raises is the set's own.
"""

import errno

from pipeline.errors import DeviceFault, DiskFull, EnvironmentTrouble, OutOfMemory

_DEVICE_WORDS = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side assert")


def environment_trouble(error: BaseException) -> EnvironmentTrouble | None:
    """The environment's trouble behind an exception; None: it is the set's own."""
    if isinstance(error, EnvironmentTrouble):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left: {error.strerror}")
    if is_out_of_memory(error):
        return OutOfMemory("memory ran out: lower method.micro_batch or give workers more memory")
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE_WORDS):
        return DeviceFault("the accelerator reported an error")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of host or device ran out, so that a smaller batch may help."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )
