"""A worker whose every set fails: the environment is at fault, no photo is condemned."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from dladiff.results import Photo, SetResult
from pipeline.config import RunConfig
from pipeline.options import RunOptions
from pipeline.pool import PoolSize
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.faults.album import PHOTOS, check_all_protected_once, write_photos
from tests.pipeline.mortal_run import CONFIG, OwnProcess

pytestmark = pytest.mark.faults


class BrokenNode(OwnProcess):
    """A worker whose disk is full for every set."""

    def _protect(self, photos: Sequence[Photo], *_: object) -> SetResult:
        if len(photos) and self.is_broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super()._protect(photos)

    is_broken = True

    @contextmanager
    def session(self, config: RunConfig, num_sets: int) -> Iterator[PoolSize]:
        yield PoolSize(workers=2, cpus_per_worker=1, gpus_per_worker=0.0, memory_bytes=0)


def test_a_node_whose_every_set_fails_stops_the_run_and_condemns_nothing(tmp_path: Path) -> None:
    photos = PHOTOS | {f"p{number}/{one}.png": number for number in range(20) for one in (1, 2)}
    album, store = write_photos(tmp_path / "in", photos), Store(str(tmp_path / "out"))
    pool = BrokenNode(store)
    outcome = run_protection(str(album), store, CONFIG, RunOptions(run_id="drill"), pool=pool)
    assert (outcome.exit_code, outcome.counts) == (3, {"deferred": len(photos)})
    assert outcome.causes.keys() == {"disk_full"}
    assert pool.num_computed == 0
    pool.is_broken = False
    outcome = run_protection(str(album), store, CONFIG, RunOptions(run_id="drill"), pool=pool)
    assert (outcome.exit_code, outcome.counts) == (0, {"protected": len(photos)})
    check_all_protected_once(store, photos)
