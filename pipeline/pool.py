"""What a run asks of the workers that protect its photo sets, whatever starts them.

``local_pool`` is for small runs on this machine, ``ray_pool`` for all others; a test runs the same
flow in its own process.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dladiff.accelerator import ACCELERATOR
from pipeline.config import RunConfig
from pipeline.records import PhotoSet
from pipeline.worker.settings import SetOutcome, WorkerSettings

READ_CPUS = 0.25
"""CPUs of a reader, beside the workers'. Not as many as a worker's, or Ray would fuse the two
operators into one."""


@dataclass(frozen=True)
class PoolSize:
    """How many workers, and what is reserved for each."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    memory_bytes: int
    sets_in_flight: int = 1
    """Sets that a worker holds at a time: 2 where one set computes while the files of the one
    before are staged."""
    most_workers: int | None = None
    """Workers that were asked for though the machines do not hold them yet: the pool grows as they
    come. None: it stays at ``workers``."""

    @property
    def device(self) -> str:
        """Where workers compute."""
        return ACCELERATOR if self.gpus_per_worker else "cpu"


class Pool(Protocol):
    """Workers, from their start to their end."""

    def session(self, config: RunConfig, num_sets: int) -> AbstractContextManager[PoolSize]:
        """Holds the machines for the time of the block, and sizes the pool.

        Args:
            config: Wishes for the pool.
            num_sets: More workers than photo sets are never started.

        Raises:
            ConfigurationError: If the machines cannot be had or are too small.
        """

    def num_alive(self) -> int:
        """Workers whose process lives now, ready or still loading; asked from another thread."""

    def at_work(self) -> Mapping[str, float]:
        """How many photos' worth of work is done of each set at work, by key; asked from another
        thread, and a few seconds old."""

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        """Reads and protects photo sets; yields an outcome as soon as a set has one.

        Raises:
            PipelineError: If the pool itself broke; a set's own troubles are outcomes.
        """
