"""The real flow of a run in one process, cheap enough to be killed at every single change.

Real are the catalog, the plan, the lock, the worker with its ledger, publishing and the manifest;
only the method is another one, which needs no models.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from dladiff.image_values import Image
from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.config import RunConfig, load_config
from pipeline.options import RunOptions, RunOutcome
from pipeline.pool import PoolSize
from pipeline.records import PhotoSet
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.worker.protect_photos import PhotoSetWorker
from pipeline.worker.read_photos import photos_of_row, read_row
from pipeline.worker.settings import SetOutcome, WorkerSettings

CONFIG = load_config(
    "zero-shot", overrides=["threads=1", "max_set_photos=2", "lock_ttl_s=60", "canary.num_sets=0"]
)
AFTER_EVERY_SET, AT_THE_END = 1e-9, 1e9
"""When a run folds, as ``fold_every_s``."""

T = TypeVar("T")


class Killed(BaseException):
    """The process ends here: not an Exception, so that no code can handle it."""


class MortalStore(Store):
    """A store whose process dies instead of making its n-th change, or any further one."""

    dies_at: int | None = None
    num_changes = 0
    seconds_later = 0.0
    """Added to the store's clock: the run comes so much later than the files say."""

    def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self._change(lambda: super(MortalStore, self).write(key, data, metadata))

    def create_exclusive(self, key: str, data: bytes) -> bool:
        return self._change(lambda: super(MortalStore, self).create_exclusive(key, data))

    def copy_published(self, staged_key: str, final_key: str, sha256: str) -> None:
        self._change(lambda: super(MortalStore, self).copy_published(staged_key, final_key, sha256))

    def delete(self, keys: Iterable[str]) -> None:
        for key in [*keys]:
            self._change(partial(super().delete, [key]))

    def store_time(self) -> float:
        return super().store_time() + self.seconds_later

    @property
    def is_dead(self) -> bool:
        return self.dies_at is not None and self.num_changes >= self.dies_at

    def _change(self, change: Callable[[], T]) -> T:
        self.num_changes += 1
        if self.is_dead:
            raise Killed
        return change()


def protected_pixels(image: Image) -> Image:
    """What the stand-in for the method makes of a photo: its negative."""
    return 255 - image


@dataclass
class OwnProcess:
    """A ``Pool`` of one worker in this process, on the same store as the driver."""

    store: Store
    num_computed: int = 0
    """Photos that the method was asked for."""

    @contextmanager
    def session(self, config: RunConfig, num_sets: int) -> Iterator[PoolSize]:
        yield PoolSize(workers=1, cpus_per_worker=1, gpus_per_worker=0.0, memory_bytes=0)

    def num_alive(self) -> int:
        return 1

    def at_work(self) -> Mapping[str, float]:
        return {}

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        worker = PhotoSetWorker(settings, load=lambda _: self._protect, store=self.store)
        self.num_computed = 0  # not the built-in photo
        for photo_set in photo_sets:
            row = read_row({"photo_set": photo_set.to_json()}, 10**6, settings.input_roots)
            outcome = worker(*photos_of_row(row))
            if isinstance(self.store, MortalStore) and self.store.is_dead:
                raise Killed  # a worker lets no exception out, but this process is gone
            yield outcome

    def _protect(self, photos: Sequence[Photo], *_: object) -> SetResult:
        self.num_computed += len(photos)
        return SetResult(
            [PhotoResult(one.key, "protected", image=protected_pixels(one.image)) for one in photos]
        )


def run(
    store: Store,
    run_id: str,
    album: Path,
    computed: list[int] | None = None,
    fold_every_s: float = AFTER_EVERY_SET,
) -> RunOutcome:
    """Protects what OUTPUT does not have yet, two photos a set.

    Args:
        computed: Gets the number of photos that the method was asked for, killed or not.
    """
    pool = OwnProcess(store)
    operation = CONFIG.operation.model_copy(update={"fold_every_s": fold_every_s})
    config = CONFIG.model_copy(update={"operation": operation})
    try:
        return run_protection(str(album), store, config, RunOptions(run_id=run_id), pool=pool)
    finally:
        if computed is not None:
            computed.append(pool.num_computed)
