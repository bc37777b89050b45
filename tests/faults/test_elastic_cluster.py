"""The real command on a cluster whose nodes are asked to go, come back, or are not there yet."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.clock import utc_now
from tests.faults.cluster_run import ClusterRun, start_run
from tests.waiting import until
from tools.trial.ray_nodes import RayCluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

NODE_CPUS = 3
"""For one worker of two threads and a reader: never for two workers."""
OPTIONS = ("--workers=2", "--set=threads=2", "--set=loop.num_steps=60")
PEOPLE = "abcdefghij"
NOTICE_S = 120
"""That a node has from SIGTERM to its end: some sets' time, and less than all sets' time."""
LIMIT_S = 600.0


@contextmanager
def running_head(folder: Path, most_nodes: int = 0) -> Iterator[RayCluster]:
    cluster = RayCluster(folder, most_nodes=most_nodes, cpus_per_node=NODE_CPUS)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="e-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The images of a run by processes of this machine: where work is done changes no byte."""
    run = start_run(tmp_path_factory.mktemp("undisturbed"), None, *OPTIONS, people=PEOPLE)
    ended(run)
    return run.images()


def ended(run: ClusterRun) -> ClusterRun:
    try:
        assert run.program.wait(LIMIT_S) == 0, run.program.log.read_text()
    finally:
        run.program.kill()
    return run


def test_a_node_that_is_told_to_go_ends_its_set_and_begins_none_and_another_takes_its_place(
    folder: Path, undisturbed: dict[str, bytes]
) -> None:
    """What spot nodes and drains do: SIGTERM to ``ray start --block``, and the end after it."""
    notice = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE_S)}
    with running_head(folder) as cluster:
        nodes = [cluster.start_node(NODE_CPUS, environment=notice) for _ in range(2)]
        run = start_run(folder / "run", cluster, *OPTIONS, people=PEOPLE)
        try:
            until(lambda: len(run.attempting_nodes()) == 2, LIMIT_S)
            nodes[0].ask_to_end()
            told_at = utc_now()
            until(lambda: not nodes[0].is_running, LIMIT_S)
            cluster.start_node(NODE_CPUS)
            ended(run)
        finally:
            run.program.kill()
        run.check_all_is_done_once(undisturbed)
    attempts = run.attempts()
    assert len(attempts) == len(PEOPLE)  # nothing was begun twice: the node's set was staged
    before = {one["node"] for one in attempts if one["started_at"] < told_at}
    assert len(before) == 2
    late = {one["node"] for one in attempts if one["started_at"] > told_at}
    assert len(before - late) == 1  # the one that was told
    assert late - before  # and the one that came


def test_a_cluster_without_a_worker_gets_nodes_for_the_run_and_gives_them_back(
    folder: Path, undisturbed: dict[str, bytes]
) -> None:
    with running_head(folder, most_nodes=2) as cluster:
        assert num_nodes(cluster) == 1
        run = ended(start_run(folder / "run", cluster, *OPTIONS, people=PEOPLE))
        run.check_all_is_done_once(undisturbed)
        assert len(run.attempting_nodes()) in (1, 2)
        until(lambda: num_nodes(cluster) == 1, LIMIT_S)


def num_nodes(cluster: RayCluster) -> int:
    """Living ones, the head among them."""
    ask = "import json, ray; ray.init(log_to_driver=False); print(json.dumps(ray.nodes()))"
    environment = os.environ | cluster.environment | {"RAY_ADDRESS": cluster.address}
    said = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    return sum(node["Alive"] for node in json.loads(said.stdout.splitlines()[-1]))
