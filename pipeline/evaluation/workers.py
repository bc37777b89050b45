"""Where an evaluation's cells are done: tasks on Ray, on this machine or a cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from dladiff.config import MethodSettings
from pipeline.config import OperationSettings, RunConfig

DoTask = Callable[[Any], Any]
OpenWorkers = Callable[[int], AbstractContextManager["Workers"]]
"""Opens workers for so many tasks."""


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers, and what each takes."""

    workers: int | None = None
    """None: as many as CPUs and memory, or GPUs, allow."""
    threads: int = 1
    """CPU threads of a worker; cells are independent, so more workers beat more threads."""
    gpus_per_worker: float | None = None
    """None: 1 where there are GPUs."""
    worker_memory_gb: float = 2.0
    ray_address: str | None = None
    """None: RAY_ADDRESS, else this machine."""


@dataclass(frozen=True)
class Workers:
    """Workers that are ready."""

    device: str
    threads: int
    do_all: Callable[[DoTask, Sequence[Any]], Iterator[tuple[Any, Any]]]
    """Does tasks (cells, say) in any order; yields each with its result when it is done."""


@contextmanager
def ray_workers(options: WorkerOptions, num_cells: int) -> Iterator[Workers]:
    """Workers on Ray, for as long as the block lasts.

    Raises:
        ConfigurationError: If the cluster cannot be reached or is too small.
    """
    if options.ray_address is not None:
        os.environ["RAY_ADDRESS"] = options.ray_address
    from pipeline.ray_pool import RayPool, run_tasks

    config = RunConfig(
        method=MethodSettings(threads=options.threads),
        operation=OperationSettings(
            workers=options.workers,
            gpus_per_worker=options.gpus_per_worker,
            worker_memory_gb=options.worker_memory_gb,
        ),
    )
    with RayPool().session(config, num_cells) as size:
        yield Workers(
            device=size.device,
            threads=options.threads,
            do_all=lambda do, tasks: run_tasks(do, tasks, size),
        )
