"""A cluster too small for the workers that were asked for, to which a node comes later."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline import ray_pool
from pipeline.catalog.folder import read_catalog
from pipeline.config import load_config
from pipeline.output.ledger import Ledger
from pipeline.planning.form_sets import form_sets
from pipeline.storage.store import Store
from pipeline.worker.code_digest import code_digest
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings
from tests.sample_photos import jpeg_bytes, write_album

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported
from ray.cluster_utils import Cluster  # isort: skip

pytestmark = pytest.mark.faults

PEOPLE = "abcdefghij"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One node with room for one worker and a reader."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


def load_sleeper(settings: WorkerSettings) -> Protector:
    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        time.sleep(5)
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return protect


def test_a_cluster_too_small_for_the_workers_begins_and_takes_more_when_a_node_comes(
    cluster: Cluster, tmp_path: Path
) -> None:
    album, output = tmp_path / "in", tmp_path / "out"
    write_album(album, {f"{who}/1.jpg": jpeg_bytes() for who in PEOPLE})
    quick = ["threads=1", "worker_memory_gb=0.1", "canary.num_sets=0", "workers=3"]
    config = load_config("zero-shot", overrides=quick)
    catalog = read_catalog(str(album), config.operation)
    sets = form_sets(catalog.photos, {}, "m", max_photos=1, max_bytes=10**9, min_photos=0)
    settings = WorkerSettings(
        str(output), "run", config, "m", "m", code_digest(), input_roots=catalog.roots
    )
    pool = ray_pool.RayPool(load_sleeper)
    outcomes = []
    with pool.session(config, len(sets)) as size:
        assert (size.workers, size.most_workers) == (1, 3)
        for outcome in pool.protect_sets(sets, settings, size):
            outcomes.append(outcome.outcome)
            if len(outcomes) == 1:
                cluster.add_node(num_cpus=2)
    assert outcomes == ["committed"] * len(PEOPLE)
    ledger = Ledger(Store(str(output)), "run")
    nodes = {attempt.node for one in sets for attempt in ledger.attempts(one.key)}
    assert len(nodes) == 2
