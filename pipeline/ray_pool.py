"""The pool of workers on Ray, fed by a Dataset's graph. The only file with ray.

One block is one photo set is one task. Ray retries lost tasks without end; the ledger counts.
"""

import dataclasses
import logging
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

# Ray reads its environment when it is imported, RAY_ADDRESS too: `run.py` sets that one before.
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Workers of a Ray started here inherit it: their idle threads sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where somebody imported Ray before, its core has read the environment: then it stays as it was.
if "ray" not in sys.modules and not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & set(os.environ):
    # A cluster of our own listens on this machine's network: only its own processes may use it,
    # and no file holds the token.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Ray's core writes its own remarks past every Python logger, onto the progress display.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Each node's agent is a Python program that a busy machine does not start in Ray's 15 s.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    # At Ray's niceness of 15 workers starve on a machine that somebody uses; `nice` still holds.
    os.environ.setdefault("RAY_worker_niceness", "0")

import pyarrow as pa
import ray
import ray.data
from ray._private import services
from ray._private.state import state as cluster_state
from ray.util.metrics import Counter
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import RunConfig
from pipeline.errors import BrokenSetup, ConfigurationError, EnvironmentTrouble, PipelineError
from pipeline.interruption import RunInterrupted
from pipeline.pool import READ_CPUS, PoolSize
from pipeline.records import PhotoSet
from pipeline.reporting.kept_logs import keep_log
from pipeline.reporting.labelled import LABEL, output_label
from pipeline.reporting.logs import set_up_logging
from pipeline.storage import traffic
from pipeline.storage.access import temporary_folder
from pipeline.worker.protector import LoadProtector, load_protector
from pipeline.worker.read_photos import photos_of_row, read_row
from pipeline.worker.settings import SetOutcome, WorkerSettings
from pipeline.worker.troubles import environment_trouble

_STDERR = 2
_STARTS = 3
"""Tries to start Ray here."""
_START_S, _MOST_START_S = 30.0, 600.0
"""For each, where this machine has nothing else to do, and at most."""
_WAIT_FOR_PORT = "RAY_gcs_server_port_wait_time_s"  # as Ray spells it
_MAX_FOLDER_LETTERS = 40
"""Of the folder of Ray's session: paths of its sockets are 64 longer, and 107 are the most."""
_ANSWER_S = 120.0
"""Time that a node has to answer a question; a process has to start there."""
_SETS_FOR_OVERLAP = 4
"""Per worker. With fewer, a set that waits beside idle workers costs more than it gains."""

_PROGRESS_S = 3.0
"""Between two questions how far the sets at work are."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class RayPool:
    """A pool of Ray actors, on the cluster at ``RAY_ADDRESS`` or on one started here."""

    def __init__(self, load: LoadProtector = load_protector) -> None:
        """Starts nothing yet.

        Args:
            load: Loads, in each process, what computes a set.
        """
        self._load = load
        self._desk: Any = None
        self._decided: set[str] = set()
        self._last_asked, self._last_heard = 0.0, dict[str, float]()

    @contextmanager
    def session(self, config: RunConfig, num_sets: int) -> Iterator[PoolSize]:
        """See ``Pool``; Ray that runs in this process already is used and left running."""
        started_here = not ray.is_initialized()
        if started_here:
            if os.environ.get("RAY_ADDRESS"):
                _connect()
            else:
                threads = config.method.threads
                workers = config.operation.workers or max(1, (os.cpu_count() or 1) // threads)
                # One CPU more than the workers take, or the readers would starve.
                start_local(num_cpus=workers * threads + 1)
        _configure_data()
        try:
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            can_grow = bool(os.environ.get("RAY_ADDRESS"))
            most = _most_resources() if can_grow else {}
            yield _pool_size(config, num_sets, resources, can_grow=can_grow, most=most)
        finally:
            if started_here:
                ray.shutdown()

    def num_alive(self) -> int:
        """See ``Pool``; 0 where Ray does not say."""
        if not ray.is_initialized():
            return 0
        try:
            actors = cluster_state.actor_table(None, actor_state_name="ALIVE")
        except Exception:  # a shutdown meanwhile, or a head that is gone: no matter of this number
            return 0
        return sum(ProtectPhotoSets.__name__ in one["ActorClassName"] for one in actors.values())

    def at_work(self) -> Mapping[str, float]:
        """See ``Pool``; empty where Ray does not say."""
        if self._desk is None or not ray.is_initialized():
            return {}
        if time.monotonic() - self._last_asked > _PROGRESS_S:
            self._last_asked = time.monotonic()
            try:
                self._last_heard = ray.get(self._desk.told.remote(), timeout=_PROGRESS_S)
            except Exception:  # a shutdown meanwhile, or a busy head: no matter of these numbers
                return {}
        return {key: done for key, done in self._last_heard.items() if key not in self._decided}

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        """Runs the graph read -> protect over photo sets; see ``Pool``."""
        operation = settings.config.operation
        self._decided = set()
        self._desk = _progress_desk()
        rows = [{"photo_set": photo_set.to_json()} for photo_set in photo_sets]
        dataset = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(
                partial(_read, settings),
                num_cpus=READ_CPUS,
                compute=ray.data.TaskPoolStrategy(size=min(operation.read_concurrency, len(rows))),
            )
            .map_batches(
                ProtectPhotoSets,
                fn_constructor_args=(settings, self._load, self._desk),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=size.cpus_per_worker,
                num_gpus=size.gpus_per_worker or None,
                memory=size.memory_bytes,
                compute=_actor_pool(size),
            )
        )
        try:
            for batch in dataset.iter_batches(
                batch_size=1, prefetch_batches=0, batch_format="pyarrow"
            ):
                for row in cast(pa.Table, batch).to_pylist():
                    outcome = SetOutcome.from_json(row["outcome"])
                    self._decided.add(outcome.set_key)
                    yield outcome
        except ray.exceptions.RayError as error:
            # E.g. workers that cannot start; a set's own troubles never come here.
            text = str(error).strip()
            _, is_setup, why = text.rpartition(f"{BrokenSetup.__name__}: ")
            if is_setup:  # without what Ray says after it
                why = why.partition("\n\n")[0]
                raise BrokenSetup(f"workers protect nothing: {why}") from error
            last_line = text.splitlines()[-1]
            raise PipelineError(f"the pool of workers broke: {last_line}") from error


def _actor_pool(size: PoolSize) -> ray.data.ActorPoolStrategy:
    sizes = {"size": size.workers}
    if size.most_workers is not None:
        sizes = {"min_size": 1, "initial_size": size.workers, "max_size": size.most_workers}
    # A task more would be one more for a dying worker to take along.
    return ray.data.ActorPoolStrategy(
        **sizes,
        max_tasks_in_flight_per_actor=size.sets_in_flight,
        max_concurrent_calls_per_actor=size.sets_in_flight,
        enable_true_multi_threading=size.sets_in_flight > 1,
    )


class _ProgressDesk:
    """Where workers leave how much of their sets is done; the driver asks it."""

    def __init__(self) -> None:
        self._done: dict[str, float] = {}

    def tell(self, set_key: str, done: float) -> None:
        self._done[set_key] = done

    def told(self) -> dict[str, float]:
        return self._done


def _progress_desk() -> Any:
    """On the driver's own node: it lives as long as anybody asks."""
    here = ray.get_runtime_context().get_node_id()
    remote: Any = ray.remote(num_cpus=0)(_ProgressDesk)
    there = NodeAffinitySchedulingStrategy(here, soft=True)
    return remote.options(scheduling_strategy=there).remote()


def _read(settings: WorkerSettings, row: dict[str, Any]) -> dict[str, Any]:
    set_up_logging(as_json=settings.log_json, verbose=settings.verbose)
    return read_row(row, settings.config.operation.max_photo_bytes, settings.input_roots)


class ProtectPhotoSets:
    """A worker as Ray Data wants it: batches of one row in, batches of one row out."""

    def __init__(self, settings: WorkerSettings, load: LoadProtector, desk: Any) -> None:
        set_up_logging(as_json=settings.log_json, verbose=settings.verbose)
        keep_log(settings.output_store(), settings.run_id, "worker")
        from pipeline.worker.protect_photos import PhotoSetWorker

        node = ray.get_runtime_context().get_node_id()
        self._broken: BrokenSetup | None = None
        try:
            self._worker = PhotoSetWorker(
                dataclasses.replace(settings, node=node),
                live_nodes,
                load=load,
                say_progress=lambda key, done: desk.tell.remote(key, done),
            )
        except Exception as error:
            if environment_trouble(error):
                raise  # another process, on another node perhaps, may load
            # The first set says it and ends the run: raised here, Ray would load twice more.
            self._broken = BrokenSetup(str(error) or type(error).__name__)
        self._photos = _counter("dladiff_photos", "Photos decided.", "status", settings)
        self._deferred = _counter("dladiff_sets_deferred", "Sets deferred.", "cause", settings)
        self._requests = _counter(
            "dladiff_store_requests", "Requests to stores, each try.", "operation", settings
        )
        self._request_seconds = _counter(
            "dladiff_store_request_seconds", "Wall seconds in them.", "operation", settings
        )
        self._retries = _counter(
            "dladiff_store_retries", "Requests made again after a wait.", "cause", settings
        )
        self._traffic = traffic.Traffic()
        self._counting = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._broken is not None:
            raise self._broken
        outcomes = []
        for row in batch.to_pylist():
            outcome = self._worker(*photos_of_row(row))
            self._record(outcome)
            outcomes.append(outcome.to_json())
        return pa.table({"outcome": outcomes})

    def _record(self, outcome: SetOutcome) -> None:
        if outcome.outcome == "deferred":
            self._deferred.inc(1, {"cause": outcome.cause or "unknown"})
        elif outcome.outcome == "committed":
            for status, number in outcome.statuses.items():
                self._photos.inc(number, {"status": status})
        self._record_requests()

    def _record_requests(self) -> None:
        """Hands the requests since the last set on; two sets may end at once."""
        with self._counting:
            sums = traffic.so_far()
            new, self._traffic = sums.less(self._traffic), sums
        for counter, numbers, tag in (
            (self._requests, new.requests, "operation"),
            (self._request_seconds, new.seconds, "operation"),
            (self._retries, new.retries, "cause"),
        ):
            for name, number in numbers.items():
                if number:
                    counter.inc(number, {tag: name})


def _counter(name: str, text: str, tag: str, settings: WorkerSettings) -> Counter:
    """A series of the workers, which Ray exports as ``ray_<name>_total``, with OUTPUT's label."""
    counter = Counter(name, text, tag_keys=(tag, LABEL))
    chosen = settings.config.operation.output_label
    counter.set_default_tags({LABEL: output_label(settings.output_uri, chosen)})
    return counter


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], size: PoolSize
) -> Iterator[tuple[Task, Result]]:
    """Runs a function of one argument on independent tasks; yields each with its result when done.

    Ray tries a task again whose process died; processes are used again, so that what they load
    stays loaded.

    Raises:
        PipelineError: If a task raised, or its process died several times.
    """

    def do(task: Task) -> Result:  # Ray takes functions only, no other callables
        return function(task)

    remote = ray.remote(
        num_cpus=size.cpus_per_worker,
        num_gpus=size.gpus_per_worker,
        memory=size.memory_bytes,
        max_calls=0,
    )(do)
    waiting = list(reversed(tasks))
    running: dict[Any, Task] = {}
    try:
        while waiting or running:
            while waiting and len(running) < size.workers:
                task = waiting.pop()
                running[remote.remote(task)] = task
            for reference in _done_so_far(list(running)):
                yield running.pop(reference), ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, PipelineError):
            raise cause from error
        last_line = str(error).strip().splitlines()[-1]
        raise PipelineError(f"a task broke: {last_line}") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def ask_nodes(question: Callable[[], Result]) -> dict[str, Result | str]:
    """What a function answers on each living node, by the node's address; a text: why it did not.

    Connects to the cluster at ``RAY_ADDRESS`` where this process has not.

    Raises:
        ConfigurationError: If the cluster cannot be reached.
    """
    if not ray.is_initialized():
        _connect()

    def ask() -> Result:  # Ray takes functions only, no other callables
        return question()

    remote: Any = ray.remote(num_cpus=0, max_retries=0)(ask)
    asked = {
        address: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(one["NodeID"], soft=False)
        ).remote()
        for address, one in _nodes_by_address().items()
    }
    answers: dict[str, Result | str] = {}
    for address, reference in asked.items():
        try:
            answers[address] = ray.get(reference, timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:
            answers[address] = str(error).strip().splitlines()[-1]
    return answers


def node_cpus() -> dict[str, float]:
    """CPUs of each living node that Ray gives to work, by the node's address."""
    return {name: one["Resources"].get("CPU", 0.0) for name, one in _nodes_by_address().items()}


def _nodes_by_address() -> dict[str, dict[str, Any]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    living = [node for node in nodes if node["Alive"]]
    return {f"{one['NodeManagerAddress']}:{one['NodeManagerPort']}": one for one in living}


def live_nodes() -> set[str]:
    """Ids of the cluster's nodes that live now, as ``WorkerSettings.node`` names them."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"] for node in nodes if node["Alive"]}


def _done_so_far(references: list[Any]) -> Sequence[Any]:
    """Those that are done, waiting a second for one at most.

    A signal's handler runs inside Ray's wait, which goes on waiting and then breaks on what the
    handler raised: so the waits are short, and ``RunInterrupted`` is taken out again.
    """
    try:
        return cast(Sequence[Any], ray.wait(references, num_returns=1, timeout=1.0)[0])
    except SystemError as error:
        if isinstance(error.__cause__, RunInterrupted):
            raise error.__cause__ from None
        raise


def _connect() -> None:
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"cannot reach the Ray cluster: {error}") from None


def start_local(num_cpus: int) -> Path:
    """Starts Ray on this machine.

    Returns:
        The folder with the logs of its processes.

    Raises:
        ConfigurationError: If there is no folder for its session.
        EnvironmentTrouble: If the machine is too busy for it.
    """
    patience_s = _patience_s()
    os.environ[_WAIT_FOR_PORT] = str(round(patience_s))
    _spare_proxies()
    folder = os.environ.get("RAY_TMPDIR") or temporary_folder(_MAX_FOLDER_LETTERS)
    for _ in range(_STARTS):
        try:
            with _without_remark_on_log_level(), _waiting_for_node(patience_s):
                context: Any = ray.init(
                    _temp_dir=os.path.join(folder, "ray"),
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
        except Exception as error:  # Ray raises this class itself
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
        else:
            return Path(context.address_info["session_dir"]) / "logs"
    raise EnvironmentTrouble(
        f"Ray did not start in {_STARTS} times {patience_s:.0f} s: is this machine busy with "
        "something else? Runs of at most operation.local_photos photos need no Ray"
    )


def _patience_s() -> float:
    """Seconds that a start may take: more by as much as this machine has to do already."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(_MOST_START_S, _START_S * max(1.0, busy))


@contextmanager
def _waiting_for_node(patience_s: float) -> Iterator[None]:
    """Ray waits 30 s for its own node, which is no setting: its question waits instead."""
    ask = services.get_node

    def ask_patiently(*arguments: Any) -> Any:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return ask(*arguments)  # type: ignore[no-untyped-call]
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    services.get_node = ask_patiently
    try:
        yield
    finally:
        services.get_node = ask


def _spare_proxies() -> None:
    """What Ray's processes on this machine say to each other goes through no proxy."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for name in ("no_proxy", "NO_PROXY"):
        spared = [one for one in os.environ.get(name, "").split(",") if one]
        local = ["localhost", "127.0.0.1", address]
        os.environ[name] = ",".join([*spared, *(one for one in local if one not in spared)])


@contextmanager
def _without_remark_on_log_level() -> Iterator[None]:
    """Drops the line in which Ray's core says that it took its log level from the environment.

    The core writes to this process's standard error itself. What else is written there meanwhile
    is kept in a file and comes afterwards.
    """
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        before = os.dup(_STDERR)
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            os.close(before)
            kept.seek(0)
            os.write(
                _STDERR, b"".join(line for line in kept if b"RAY_BACKEND_LOG_LEVEL" not in line)
            )


def _configure_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a set may work for hours; the watch ends hangs
    context.max_consecutive_actor_init_deaths = 3
    # A pool that may grow does so when all workers are busy: more than that they never are, since
    # no tasks wait in them.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _most_resources() -> dict[str, float]:
    """What the cluster's autoscaler may bring it to; empty: it has none, or does not say."""
    try:
        return dict(cluster_state.get_max_resources_from_cluster_config() or {})
    except Exception:  # no interface of Ray that is promised to stay
        return {}


def _pool_size(
    config: RunConfig,
    num_sets: int,
    resources: dict[str, Any],
    *,
    can_grow: bool,
    most: Mapping[str, float] | None = None,
) -> PoolSize:
    """
    Args:
        can_grow: A cluster, which may have lost a node or not have all of them yet: as many workers
            as it holds now begin. One machine refuses what it will never hold.
        most: Of an autoscaler, see ``_most_resources``: such a cluster may have no node for workers
            yet. The first one asks for it by waiting.
    """
    operation, threads = config.operation, config.method.threads
    now = {name: resources.get(name, 0.0) for name in ("CPU", "GPU", "memory")}
    later = {name: max(number, (most or {}).get(name, 0.0)) for name, number in now.items()}
    memory, available = int(operation.worker_memory_gb * 1024**3), later["memory"]
    if 0 < available < memory:
        # A laptop has less: one worker gets what there is, rather than waiting for ever.
        logging.getLogger("dladiff.run").warning(
            "this cluster has less memory than operation.worker_memory_gb asks for"
        )
        memory = int(available)
    cpus, gpus, per_worker = later["CPU"], later["GPU"], operation.gpus_per_worker
    if per_worker is None:
        per_worker = 1.0 if gpus >= 1 and config.method.reads_model else 0.0
    if per_worker > gpus:
        raise ConfigurationError(
            f"gpus_per_worker is {per_worker:g}, but the cluster has {gpus:g} GPUs"
        )
    fit_now = _most_workers(per_worker, now["GPU"], now["CPU"], threads, now["memory"], memory)
    fit_later = _most_workers(per_worker, gpus, cpus, threads, available, memory)
    workers = operation.workers or max(1, fit_later)
    most_workers = None
    if can_grow and workers > fit_now and threads + READ_CPUS <= cpus:
        logging.getLogger("dladiff.run").warning(
            "%d workers were asked for, the cluster holds %d now: the run begins with these and "
            "takes more as nodes come",
            workers,
            fit_now,
        )
        most_workers, workers = min(workers, max(1, num_sets)), max(1, fit_now)
    if (fit := _most_on_gpus(per_worker, gpus)) is not None and workers > fit:
        raise ConfigurationError(
            f"{workers} workers of {per_worker:g} GPUs: the {gpus:g} GPUs of the cluster hold "
            f"{fit}. Lower --workers or operation.gpus_per_worker"
        )
    if workers * threads + READ_CPUS > cpus:
        raise ConfigurationError(
            f"{workers} workers of {threads} CPUs and a reader need "
            f"{workers * threads + 1} CPUs, the cluster has {cpus:g}: lower --workers"
        )
    workers = max(1, min(workers, num_sets))
    overlap = operation.stage_while_computing
    if overlap is None:
        overlap = per_worker > 0 and num_sets >= _SETS_FOR_OVERLAP * workers
    if most_workers is not None and most_workers <= workers:
        most_workers = None
    in_flight = 2 if overlap else 1
    return PoolSize(workers, threads, per_worker, memory, in_flight, most_workers)


def _most_workers(
    gpus_per_worker: float, gpus: float, cpus: float, threads: int, available: float, memory: int
) -> int:
    limits = [int((cpus - READ_CPUS) // threads)]
    if available:
        limits.append(int(available // memory))
    if (fit := _most_on_gpus(gpus_per_worker, gpus)) is not None:
        limits.append(fit)
    return max(0, min(limits))


def _most_on_gpus(gpus_per_worker: float, gpus: float) -> int | None:
    """Workers that GPUs have room for: a share of one GPU is never split over two.

    None: workers use no GPU.
    """
    if not gpus_per_worker:
        return None
    if gpus_per_worker >= 1:
        return int(gpus // gpus_per_worker)
    return int(gpus) * int(1 / gpus_per_worker + 1e-9)
