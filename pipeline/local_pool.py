"""The pool of workers as processes of this machine: for runs that are over before Ray has started.

The workers are those of Ray's pool; each reads its sets itself. A process that ends gives its sets
back, to be done again in a new one: the ledger counts such attempts and gives a set up.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import BrokenSetup, ConfigurationError, PipelineError
from pipeline.pool import PoolSize
from pipeline.records import PhotoSet
from pipeline.worker.protector import LoadProtector, load_protector
from pipeline.worker.settings import SetOutcome, WorkerSettings

_SPAWN = multiprocessing.get_context("spawn")
"""A fork would take over the threads' locks and the open connections of the driver."""
_MAX_DEATHS_AT_START = 3
_LEAVING_S = 5.0
_READY, _OUTCOME, _BROKEN, _PROGRESS = "ready", "outcome", "broken", "progress"


class LocalPool:
    """A pool of processes that this one starts, on this machine's CPUs."""

    def __init__(self, load: LoadProtector = load_protector) -> None:
        """Starts nothing yet; ``load`` loads, in each process, what computes a set."""
        self._load = load
        self._workers: list[_Worker] = []

    @contextmanager
    def session(self, config: RunConfig, num_sets: int) -> Iterator[PoolSize]:
        """See ``Pool``; processes start with the first set."""
        if config.operation.gpus_per_worker:
            raise ConfigurationError("operation.gpus_per_worker: workers with GPUs run on Ray only")
        try:
            yield _pool_size(config, num_sets)
        finally:
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        """See ``Pool``."""
        waiting = deque(photo_sets)
        deaths_at_start, deaths = 0, Counter[str]()
        operation = settings.config.operation
        max_deaths = operation.max_crashed_attempts + operation.max_lost_attempts
        while waiting or any(worker.photo_sets for worker in self._workers):
            while len(self._workers) < min(size.workers, len(waiting) + self._num_busy()):
                self._start(settings, size)
            for worker in self._workers:
                while waiting and worker.has_room(size.sets_in_flight):
                    worker.give(waiting.popleft())
            connections = [worker.connection for worker in self._workers]
            heard = connection.wait(connections, timeout=1.0)
            for worker in [one for one in self._workers if one.connection in heard]:
                message = worker.receive()
                if message is not None and message[0] == _OUTCOME:
                    yield worker.take(SetOutcome.from_json(message[1]))
                elif message is not None and message[0] == _PROGRESS:
                    worker.note(message[1])
                elif message is not None and message[0] == _READY:
                    deaths_at_start = 0
                else:
                    worker.end()
                    self._workers.remove(worker)
                    deaths_at_start += not worker.is_ready
                    deaths.update(worker.photo_sets.keys())
                    hopeless = deaths and max(deaths.values()) > max_deaths
                    if message:
                        raise BrokenSetup(f"workers protect nothing: {message[1]}")
                    if hopeless or deaths_at_start == _MAX_DEATHS_AT_START:
                        trouble = worker.last_words()
                        raise PipelineError(f"the pool of workers broke: {trouble}")
                    waiting.extendleft(reversed(worker.photo_sets.values()))

    def num_alive(self) -> int:
        """See ``Pool``."""
        return sum(worker.is_alive for worker in list(self._workers))

    def at_work(self) -> Mapping[str, float]:
        """See ``Pool``."""
        return {key: done for worker in list(self._workers) for key, done in worker.done.items()}

    def _num_busy(self) -> int:
        return sum(bool(worker.photo_sets) for worker in self._workers)

    def _start(self, settings: WorkerSettings, size: PoolSize) -> "_Worker":
        worker = _Worker(settings, self._load, size.sets_in_flight)
        self._workers.append(worker)
        return worker


class _Worker:
    """A process of the pool, as the driver sees it."""

    def __init__(self, settings: WorkerSettings, load: LoadProtector, sets_in_flight: int) -> None:
        self.photo_sets: dict[str, PhotoSet] = {}
        """Given to it and not decided yet, by key."""
        self.done: Mapping[str, float] = {}
        """Photos' worth of work of these; replaced as a whole, since another thread reads it."""
        self.is_ready = False
        shows_log = settings.log_json or settings.verbose
        # A display must not be written over; what a process says as it ends is kept for the error.
        self._log = None if shows_log else tempfile.NamedTemporaryFile(prefix="dladiff-")  # noqa: SIM115
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_work,
            args=(theirs, settings, load, sets_in_flight, self._log and self._log.name),
            name="dladiff-worker",
            daemon=True,
        )
        with _passive_waiting():
            self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def has_room(self, sets_in_flight: int) -> bool:
        return self.is_ready and len(self.photo_sets) < sets_in_flight

    def give(self, photo_set: PhotoSet) -> None:
        self.photo_sets[photo_set.key] = photo_set
        with suppress(OSError):  # it has just ended: `receive` will say so
            self.connection.send(photo_set.to_json())

    def take(self, outcome: SetOutcome) -> SetOutcome:
        del self.photo_sets[outcome.set_key]
        self.done = {key: done for key, done in self.done.items() if key != outcome.set_key}
        return outcome

    def note(self, progress: str) -> None:
        set_key, done = json.loads(progress)
        self.done = {**self.done, set_key: done}

    def receive(self) -> tuple[str, str] | None:
        """The next message, waited for; None: the process has ended."""
        try:
            kind, text = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.is_ready |= kind == _READY
        return kind, text

    def end(self) -> None:
        """Ends the process, whatever it does, and waits until it is gone.

        One that does nothing may go by itself: a kill would leave what it shares behind.
        """
        self.connection.close()
        if self.is_ready and not self.photo_sets:
            self._process.join(_LEAVING_S)
        self._process.kill()
        self._process.join()

    def last_words(self) -> str:
        lines = Path(self._log.name).read_text(errors="replace").split("\n") if self._log else []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"a process ended with {self._process.exitcode}"


@contextmanager
def _passive_waiting() -> Iterator[None]:
    """A process started within lets its idle threads sleep: OpenMP reads this when it is loaded."""
    name = "OMP_WAIT_POLICY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[name]


def _work(
    driver: Any, settings: WorkerSettings, load: LoadProtector, sets_in_flight: int, log: str | None
) -> None:
    """The life of a worker's process: it ends with the driver, or when that ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the driver decides
    threading.Thread(target=_leave_with_driver, name="leave-with-driver", daemon=True).start()
    if log is not None:
        with open(log, "ab") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
    from pipeline.reporting.logs import set_up_logging

    set_up_logging(as_json=settings.log_json, verbose=settings.verbose)
    from pipeline.reporting.kept_logs import keep_log

    keep_log(settings.output_store(), settings.run_id, "worker")
    from pipeline.worker.protect_photos import PhotoSetWorker
    from pipeline.worker.read_photos import read_photo_set

    sending = threading.Lock()

    def send(kind: str, text: str = "") -> None:
        with sending:
            driver.send((kind, text))

    try:
        worker = PhotoSetWorker(
            settings,
            load=load,
            say_progress=lambda key, done: send(_PROGRESS, json.dumps([key, done])),
        )
    except Exception as error:  # whatever it is, the driver says it to a person
        send(_BROKEN, str(error) or type(error).__name__)
        return
    max_bytes, roots = settings.config.operation.max_photo_bytes, settings.input_roots

    def protect(text: str) -> None:
        photo_set = PhotoSet.from_json(text)
        try:
            outcome = worker(photo_set, read_photo_set(photo_set, max_bytes, roots))
            send(_OUTCOME, outcome.to_json())
        except BrokenSetup as error:
            send(_BROKEN, str(error))
        except BaseException:  # reading ran out of memory, say: the driver hears the end
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    send(_READY)
    with ThreadPoolExecutor(sets_in_flight) as threads, suppress(EOFError):
        while True:
            threads.submit(protect, driver.recv())


def _leave_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os._exit(1)


def _pool_size(config: RunConfig, num_sets: int) -> PoolSize:
    operation, threads = config.operation, config.method.threads
    memory = int(operation.worker_memory_gb * 1024**3)
    most = min(num_cpus() // threads, _available_bytes() // memory)
    workers = max(1, min(operation.workers or most, num_sets))
    in_flight = 2 if operation.stage_while_computing else 1
    return PoolSize(workers, threads, 0.0, memory, sets_in_flight=in_flight)


def num_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _available_bytes() -> int:
    """Memory that can be had without swapping; where the system doesn't say, half of all."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
