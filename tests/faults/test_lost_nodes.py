"""A worker node that dies, and one that nobody can reach for 80 seconds."""

import contextlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.cluster_run import NODE_CPUS, ClusterRun, start_run
from tests.waiting import until
from tools.trial.programs import Program
from tools.trial.ray_nodes import RayCluster

pytestmark = pytest.mark.faults

PARTITION_S = 80.0
LIMIT_S = 400.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="n-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def running_head(folder: Path, host: str = "127.0.0.1") -> Iterator[RayCluster]:
    cluster = RayCluster(folder, host)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.kill()


def begun(run: ClusterRun) -> bool:
    """Whether some sets are decided and one more has been begun."""
    assert run.program.is_running, run.program.log.read_text()
    return run.num_commits >= 2 and run.num_attempts > run.num_commits


def disturbed(
    folder: Path, cluster: RayCluster, start_node: Callable[[], Program], lose: Callable[[], None]
) -> ClusterRun:
    """An undisturbed run and one whose node is lost in the middle; returns the checked second.

    Args:
        lose: Takes the node away for as long as it pleases; another one comes afterwards.
    """
    start_node()
    undisturbed = start_run(folder / "undisturbed", cluster)
    assert undisturbed.program.wait(LIMIT_S) == 0, undisturbed.program.log.read_text()
    run = start_run(folder / "disturbed", cluster)
    try:
        until(lambda: begun(run), LIMIT_S)
        lose()
        start_node()
        assert run.program.wait(LIMIT_S) == 0, run.program.log.read_text()
    finally:
        run.program.kill()
    assert len(run.attempting_nodes()) == 2
    run.check_all_is_done_once(undisturbed.images())
    return run


def test_a_worker_node_that_is_killed_and_replaced_costs_the_set_in_flight(folder: Path) -> None:
    with running_head(folder) as cluster:
        nodes: list[Program] = []

        def start_node() -> Program:
            nodes.append(cluster.start_node(NODE_CPUS))
            return nodes[-1]

        disturbed(folder, cluster, start_node, lambda: nodes[-1].kill())


@dataclass
class Network:
    """A bridge on this machine and a network namespace with one cable to it."""

    name: str
    cable: str
    """This machine's end."""
    host: str = "10.213.77.1"
    node: str = "10.213.77.2"

    def plug(self, state: str) -> None:
        """Both sides keep their addresses; ``down``: what they send to each other is lost."""
        ip("link", "set", self.cable, state)

    def inside(self) -> list[str]:
        """Runs a command as another machine would: its own network and host name."""
        rename = f'hostname {self.name} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", rename, "sh"]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    name = f"d{uuid.uuid4().hex[:8]}"
    network = Network(name, f"{name}h")
    bridge, far = f"{name}b", f"{name}n"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody make networks: needs root and iproute2")
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{network.host}/24", "dev", bridge)
        ip("link", "add", network.cable, "type", "veth", "peer", "name", far, "netns", name)
        ip("link", "set", network.cable, "master", bridge)
        ip("-n", name, "addr", "add", f"{network.node}/24", "dev", far)
        for each in ((bridge,), (network.cable,)):
            ip("link", "set", *each, "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", far, "up")
        yield network
    finally:
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
        ip("netns", "del", name)


def test_a_partition_of_80_s_between_driver_and_worker_node_loses_nothing(
    folder: Path, network: Network
) -> None:
    """OUTPUT stays in reach of both, as a bucket does: what the lost node decides meanwhile holds.

    A node that was cut off for so long ends itself, as Ray has it; another one takes its place.
    """
    with running_head(folder, network.host) as cluster:

        def cut() -> None:
            network.plug("down")
            time.sleep(PARTITION_S)
            network.plug("up")

        def start_node() -> Program:
            return cluster.start_node(NODE_CPUS, network.node, network.inside())

        disturbed(folder, cluster, start_node, cut)
