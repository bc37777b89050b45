"""A run in a process of its own that sends itself a signal right before a change of OUTPUT.

All of ``mortal_run`` is real; here the signal is too, so that nothing is tidied up and no file is
closed. The process is forked: importing everything anew would take most of a drill's time.
"""

import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import EnvironmentTrouble, PipelineError
from pipeline.options import EXIT_ERROR, EXIT_UNFINISHED, RunOptions
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import AFTER_EVERY_SET, CONFIG, OwnProcess

LOCK_TTL_S = 12.0


class DeadlyStore(Store):
    """Sends its process a signal before the first change of a key that matches a pattern."""

    pattern: str | None = None
    signal = signal.SIGKILL

    def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self._before(key)
        super().write(key, data, metadata)

    def create_exclusive(self, key: str, data: bytes) -> bool:
        self._before(key)
        return super().create_exclusive(key, data)

    def copy_published(self, staged_key: str, final_key: str, sha256: str) -> None:
        self._before(final_key)
        super().copy_published(staged_key, final_key, sha256)

    def delete(self, keys: Iterable[str]) -> None:
        for key in [*keys]:
            self._before(f"delete {key}")
            super().delete([key])

    def _before(self, change: str) -> None:
        if self.pattern is not None and re.match(self.pattern, change):
            self.pattern = None
            os.kill(os.getpid(), self.signal)


class ProcessRun:
    """A run in a forked process, as its parent sees it."""

    def __init__(
        self,
        album: Path,
        output: Path,
        run_id: str,
        before: str | None = None,
        sends: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Starts it.

        Args:
            before: Pattern of the keys before whose first change the run sends itself a signal.
            sends: That signal.
        """
        store = DeadlyStore(str(output))
        store.pattern, store.signal = before, sends
        descriptor, name = tempfile.mkstemp()
        os.close(descriptor)
        self._log = Path(name)
        self._process = multiprocessing.get_context("fork").Process(
            target=_run, args=(album, store, run_id, self._log), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait_until_stopped(self) -> None:
        """Until the process has stopped itself."""
        deadline = time.monotonic() + 100
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert self._process.is_alive(), self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self) -> tuple[int | None, int | None, str]:
        """Exit code or minus the signal, photos that the method was asked for, what it wrote."""
        self._process.join(200)
        text = self._log.read_text()
        self._log.unlink()
        found = re.search(r"^computed (\d+)$", text, re.MULTILINE)
        return self._process.exitcode, found and int(found[1]), text


def _run(album: Path, store: DeadlyStore, run_id: str, log: Path) -> None:
    """The child's life."""
    descriptor = os.open(log, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(descriptor, "w", buffering=1)  # noqa: SIM115 - until the end
    pool = OwnProcess(store)
    changes = {"fold_every_s": AFTER_EVERY_SET, "lock_ttl_s": LOCK_TTL_S}
    operation = CONFIG.operation.model_copy(update=changes)
    config = CONFIG.model_copy(update={"operation": operation})
    try:
        options = RunOptions(run_id=run_id)
        outcome = run_protection(str(album), store, config, options, pool=pool)
    except PipelineError as error:  # as the command line ends
        print(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_UNFINISHED if isinstance(error, EnvironmentTrouble) else EXIT_ERROR)
    print(f"computed {pool.num_computed}")
    sys.exit(outcome.exit_code)
