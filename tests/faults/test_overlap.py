"""A worker that stages a set while the next one computes: what its death costs."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline import ray_pool
from pipeline.config import load_config
from pipeline.options import RunOptions
from pipeline.output.manifest import newest_state
from pipeline.run import run_protection
from pipeline.storage.store import open_store
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings
from tests.sample_photos import encode, photo_image

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

pytestmark = pytest.mark.faults

DEADLY_HEIGHT = 65
"""Of a photo whose set always ends its process."""


@pytest.fixture(autouse=True)
def local_ray() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray_pool.start_local(num_cpus=2)
    yield
    ray.shutdown()


def load_deadly(_: WorkerSettings) -> Protector:
    """Pictures take long to encode, so that there is always one on its way when a process ends."""

    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        if any(one.image.shape[0] == DEADLY_HEIGHT for one in photos):
            time.sleep(0.2)
            os._exit(1)
        slow = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
        return SetResult([PhotoResult(one.key, "protected", image=slow) for one in photos])

    return protect


def test_a_set_that_ends_its_process_never_takes_its_neighbours_along(tmp_path: Path) -> None:
    album, output = tmp_path / "in", tmp_path / "out"
    album.mkdir()
    for number in range(8):
        height = DEADLY_HEIGHT if number == 4 else 64
        (album / str(number)).mkdir()
        content = encode(photo_image(height, 64, number), "PNG")
        (album / str(number) / "1.png").write_bytes(content)
    config = load_config(
        "zero-shot",
        overrides=[
            "threads=1",
            "workers=1",
            "worker_memory_gb=0.2",
            "canary.num_sets=0",
            "stage_while_computing=true",
        ],
    )
    pool = ray_pool.RayPool(load_deadly)
    outcome = run_protection(str(album), str(output), config, RunOptions(run_id="drill"), pool=pool)
    assert outcome.counts == {"protected": 7, "quarantined": 1}
    states = {state.identity: state for state in newest_state(open_store(str(output))).values()}
    assert {name for name, state in states.items() if state.status == "quarantined"} == {"4"}
    attempts = [*output.glob("runs/drill/attempts/*/*.json")]
    # Three of the deadly one; at its first, one neighbour may have been on its way.
    assert 3 + 7 <= len(attempts) <= 3 + 8
