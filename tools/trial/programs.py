"""Programs that a trial or a drill starts on this machine, and ends with all of their children."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_MARK = "DLADIFF_PROGRAM"
"""Variable in the environment of a program and of whatever it starts, in whichever session."""
_LOOKS = 3
"""That have to find none of a program's processes, one after the other."""
GRPC_OFFSET = 10_000
"""SeaweedFS listens for its own servers at each port plus this."""


class Program:
    """A program with its children; nothing runs before ``start``. Its output goes to a file."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            environment: What its environment has besides that of this process.
        """
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = ""

    def start(self) -> None:
        """Starts it in its log's folder and a session of its own: Ctrl-C is not for it."""
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        environment = os.environ | self._environment | {name: value}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.log.parent,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Returns once it is ready.

        Raises:
            RuntimeError: If it ends before, or is not ready in time; with the end of its output.
        """
        deadline = time.monotonic() + limit_s
        while not ready():
            if not self.is_running or time.monotonic() > deadline:
                how = "is not up yet" if self.is_running else "has ended"
                text = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{Path(self._command[0]).name} {how}:\n{text}")
            time.sleep(0.1)

    def wait(self, limit_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(limit_s)

    def ask_to_end(self) -> None:
        """SIGTERM to the program itself, as a machine sends it that is about to go."""
        assert self._process is not None
        _send(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and all that it started, as if its machine lost power."""
        if self._process is None:
            return
        looks_without = 0
        # Of a process that has just been started the system shows no environment for a moment.
        while looks_without < _LOOKS:
            marked = processes_with(self._mark)
            for process_id in marked:
                _send(process_id, signal.SIGKILL)
            looks_without = 0 if marked else looks_without + 1
            self._process.poll()
            time.sleep(0.05)
        if self.is_running:  # a system without /proc
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine that nobody listens at, nor at those 10,000 above them."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 50_000)
        if port not in ports and _is_free(port) and _is_free(port + GRPC_OFFSET):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def processes_with(variable: str) -> list[int]:
    """Ids of the living processes that were started with ``NAME=value`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if variable.encode() in environment:
            found.append(int(folder.name))
    return found


def _send(process_id: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, number)
