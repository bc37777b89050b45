"""Seconds by stage and peak memory, into the cost of a photo set.

Waits for the device at the ends of a stage only, never inside a step.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dladiff.accelerator import is_accelerator, peak_memory_bytes, wait_for
from dladiff.results import Cost


@contextmanager
def timed(cost: Cost, stage: str, device: torch.device) -> Iterator[None]:
    """Adds the wall seconds of a stage to ``cost``, device time included."""
    started = _now(device)
    try:
        yield
    finally:
        seconds = _now(device) - started
        cost.add_seconds(stage, seconds)
        if is_accelerator(device):
            cost.gpu_seconds += seconds
        cost.peak_memory_gb = max(cost.peak_memory_gb, _peak_memory_gb(device))


def _now(device: torch.device) -> float:
    wait_for(device)
    return time.perf_counter()


def _peak_memory_gb(device: torch.device) -> float:
    """The peak of an accelerator's memory; on the CPU, of the process's resident memory."""
    if (of_device := peak_memory_bytes(device)) is not None:
        return of_device / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
