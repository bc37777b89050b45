"""Who does something: the process, its machine and its node, told apart from any other.

Knows /proc where there is one, and reads it itself: ``psutil.Process.create_time`` is a time of day
that moves whenever the system's clock is set, so that a living process would look like another one.
"""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, never equal to another one, though process ids are reused."""

    host: str
    """Host name; in a pod the pod's name."""
    boot_id: str
    """Of the kernel's start: another one means that all its processes are gone."""
    pid: int
    process_started: str
    """Clock ticks from boot to the start of the process; '' where the system doesn't say."""

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None if it ran on another machine or pod."""
        here = this_process()
        if (self.host, self.boot_id) != (here.host, here.boot_id):
            return None
        return _start_of(self.pid) != self.process_started


def this_process() -> ProcessIdentity:
    """Identity of the calling process."""
    boot_id = ""
    with contextlib.suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    pid = os.getpid()
    return ProcessIdentity(socket.gethostname(), boot_id, pid, _start_of(pid) or "")


def _start_of(pid: int) -> str | None:
    """Start time of a running process, '' where it runs but has none, None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended while it was read
        if Path("/proc/self/stat").exists():
            return None
        return "" if _runs(pid) else None
    # The second field, the program's name in brackets, may hold anything, brackets included.
    fields = text.rpartition(")")[2].split()
    is_zombie = fields[0] == "Z"
    return None if is_zombie else fields[19]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
