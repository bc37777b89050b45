"""How many workers share a GPU: on a real Ray that counts one GPU, and workers that use none."""

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline import ray_pool
from pipeline.catalog.folder import read_catalog
from pipeline.config import RunConfig, load_config
from pipeline.errors import ConfigurationError
from pipeline.planning.form_sets import form_sets
from pipeline.worker.code_digest import code_digest
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings
from tests.sample_photos import jpeg_bytes, write_album

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
"""How long a worker waits for another one: a busy machine starts it late."""


@pytest.fixture(scope="module", autouse=True)
def one_gpu() -> Iterator[None]:
    """Ray with a resource GPU on which nobody computes anything."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def config_of(*overrides: str) -> RunConfig:
    quick = ["threads=1", "worker_memory_gb=0.1", "canary.num_sets=0"]
    return load_config("zero-shot", overrides=[*quick, *overrides])


def load_meeting(folder: Path, settings: WorkerSettings) -> Protector:
    """A method that ends once two sets are being worked on, or after a while without that."""

    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        (folder / uuid.uuid4().hex).touch()
        until = time.monotonic() + PATIENCE_S
        while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return protect


def test_two_workers_of_half_a_gpu_work_on_it_at_the_same_time(tmp_path: Path) -> None:
    album, output, meeting = tmp_path / "in", tmp_path / "out", tmp_path / "meeting"
    meeting.mkdir()
    write_album(album, {f"{who}/1.jpg": jpeg_bytes() for who in ("ann", "bob")})
    config = config_of("gpus_per_worker=0.5")
    catalog = read_catalog(str(album), config.operation)
    sets = form_sets(catalog.photos, {}, "m", max_photos=1, max_bytes=10**9, min_photos=0)
    settings = WorkerSettings(
        str(output), "run", config, "m", "m", code_digest(), input_roots=catalog.roots
    )
    pool = ray_pool.RayPool(load=partial(load_meeting, meeting))
    with pool.session(config, len(sets)) as size:
        assert (size.workers, size.gpus_per_worker, size.device) == (2, 0.5, "cuda")
        began = time.monotonic()
        outcomes = [*pool.protect_sets(sets, settings, size)]
    assert [one.outcome for one in outcomes] == ["committed", "committed"]
    assert max(one.seconds for one in outcomes) < PATIENCE_S  # they met
    assert time.monotonic() - began < 2 * PATIENCE_S


@pytest.mark.parametrize(("share", "workers"), [("1.0", 1), ("0.6", 1), ("0.5", 2), ("0", 2)])
def test_workers_are_as_many_as_shares_fit_on_the_gpu(share: str, workers: int) -> None:
    config = config_of(f"gpus_per_worker={share}")
    with ray_pool.RayPool().session(config, num_sets=10) as size:
        assert size.workers == workers


def test_more_workers_than_fit_on_the_gpus_are_refused_rather_than_awaited() -> None:
    config = config_of("gpus_per_worker=1.0", "workers=2")
    with (
        pytest.raises(ConfigurationError, match=r"the 1 GPUs of the cluster hold 1\. Lower"),
        ray_pool.RayPool().session(config, num_sets=10),
    ):
        pass


def load_witness(folder: Path, output: Path, settings: WorkerSettings) -> Protector:
    """A method whose pictures take long to encode, and which notes what is committed meanwhile."""

    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        num_commits = len([*output.glob("runs/run/commits/*.json")])
        (folder / f"{uuid.uuid4().hex}-{num_commits}").touch()
        slow = np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), dtype=np.uint8)
        return SetResult([PhotoResult(one.key, "protected", image=slow) for one in photos])

    return protect


@pytest.mark.parametrize(("overlap", "begin"), [("true", [0, 0]), ("false", [0, 1, 2])])
def test_a_worker_encodes_a_set_while_the_next_one_computes(
    overlap: str, begin: list[int], tmp_path: Path
) -> None:
    album, output, notes = tmp_path / "in", tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    write_album(album, {f"{who}/1.jpg": jpeg_bytes() for who in ("ann", "bob", "cleo")})
    config = config_of("gpus_per_worker=1.0", f"operation.stage_while_computing={overlap}")
    catalog = read_catalog(str(album), config.operation)
    sets = form_sets(catalog.photos, {}, "m", max_photos=1, max_bytes=10**9, min_photos=0)
    settings = WorkerSettings(
        str(output), "run", config, "m", "m", code_digest(), input_roots=catalog.roots
    )
    pool = ray_pool.RayPool(load=partial(load_witness, notes, output))
    with pool.session(config, len(sets)) as size:
        assert size.workers == 1
        outcomes = [*pool.protect_sets(sets, settings, size)]
    assert [one.outcome for one in outcomes] == ["committed"] * 3
    seen = sorted(int(note.name.rpartition("-")[2]) for note in notes.iterdir())
    # The second set waits in the worker; the third comes when Ray hands it out.
    assert seen[: len(begin)] == begin
    assert len(seen) == 3


@pytest.mark.parametrize(("share", "in_flight"), [("1.0", 2), ("0", 1)])
def test_sets_overlap_where_a_worker_has_a_gpu(share: str, in_flight: int) -> None:
    with ray_pool.RayPool().session(config_of(f"gpus_per_worker={share}"), num_sets=10) as size:
        assert size.sets_in_flight == in_flight
