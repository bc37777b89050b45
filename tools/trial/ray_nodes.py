"""A Ray cluster of several nodes on this machine: a head for the driver, nodes for the workers."""

import json
import secrets
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tools.trial.programs import Program, free_ports

_UP = "Ray runtime started."
_TOO_SLOW = "timed out during startup"
_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""By which Ray's provider of its tests knows the head."""
_OBJECT_STORE_BYTES = 200_000_000
_STARTS = 3
"""Tries to start a node; each has 30 s, which is no setting and little on a busy machine."""


class RayCluster:
    """A head without CPUs for work, as in ``k8s/``, and nodes that may come and go."""

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        head_cpus: int = 0,
        most_nodes: int = 0,
        cpus_per_node: int = 2,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: For logs and sockets; its path must be short, sockets' names are limited.
            host: Address of the head.
            head_cpus: CPUs of the head that work may take.
            most_nodes: Nodes that Ray's own autoscaler may start when work waits, and ends when
                they are idle; 0: no autoscaler.
            cpus_per_node: Of each of these.
        """
        self._folder, self._host = folder, host
        self._programs: list[Program] = []
        self._of_head: dict[str, str] = {}
        gcs, dashboard, client, metrics, agent = free_ports(5)
        self.address = f"{host}:{gcs}"
        """For drivers."""
        self.jobs_url = f"http://{host}:{dashboard}"
        """For ``ray job submit``."""
        self.metrics_targets = [f"{host}:{metrics}"]
        """Of all nodes that were ever started, for Prometheus."""
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            # As pipeline/ray_pool.py has it for a cluster of its own.
            "RAY_agent_register_timeout_ms": "120000",
            "RAY_worker_niceness": "0",
            # Ray hands metrics on every 10 s, longer than small runs last.
            "RAY_metrics_report_interval_ms": "1000",
        }
        """What a driver needs beside the address."""
        self._head = [
            *("--head", f"--port={gcs}", f"--node-ip-address={host}", f"--num-cpus={head_cpus}"),
            *(f"--dashboard-host={host}", f"--dashboard-port={dashboard}"),
            *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
            # Taken by another Ray on this machine, its default port leaves the head without jobs.
            f"--dashboard-agent-listen-port={agent}",
            f"--temp-dir={folder / 'r'}",
        ]
        if most_nodes:
            self._add_autoscaler(most_nodes, cpus_per_node)

    def start_head(self) -> Program:
        """Returns once drivers and nodes can join."""
        return self._start("head", self._head, environment=self._of_head)

    def start_node(
        self,
        num_cpus: int,
        host: str | None = None,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> Program:
        """Returns once a node for workers has joined.

        Args:
            host: Its address; None: the head's.
            prefix: Command that runs the node's command, e.g. in another network.
            environment: What differs from the cluster's.
        """
        metrics, agent = free_ports(2)
        host = host or self._host
        self.metrics_targets.append(f"{host}:{metrics}")
        arguments = [f"--address={self.address}", f"--node-ip-address={host}"]
        arguments += [f"--num-cpus={num_cpus}", f"--metrics-export-port={metrics}"]
        arguments += [f"--dashboard-agent-listen-port={agent}"]
        return self._start(f"node-{len(self._programs)}", arguments, prefix, environment)

    def _add_autoscaler(self, most_nodes: int, cpus_per_node: int) -> None:
        """Ray's autoscaler (v2) with the provider of its own tests: nodes are processes here."""
        node: dict[str, object] = {"node_config": {}, "min_workers": 0}
        provider = {
            "type": "fake_multinode",
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
            "gcs_address": self.address,
        }
        resources = {"CPU": cpus_per_node, "object_store_memory": _OBJECT_STORE_BYTES}
        config = {
            "cluster_name": "trial",
            "max_workers": most_nodes,
            "idle_timeout_minutes": 0.1,
            "provider": provider,
            "auth": {},
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": node | {"resources": {"CPU": 0}, "max_workers": 0},
                "worker": node | {"resources": resources, "max_workers": most_nodes},
            },
        }
        path = self._folder / "autoscaler.json"
        path.write_text(json.dumps(config))
        self._head.append(f"--autoscaling-config={path}")
        self._of_head = {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }

    def kill(self) -> None:
        """Ends all nodes and their workers; a driver's connection breaks."""
        for program in reversed(self._programs):
            program.kill()

    def _start(
        self,
        name: str,
        arguments: Sequence[str],
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> Program:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [*prefix, ray, "start", *arguments, "--block", "--disable-usage-stats"]
        for number in range(_STARTS):
            log = self._folder / f"{name}.{number}.log"
            program = Program(command, log, self.environment | (environment or {}))
            self._programs.append(program)
            program.start()
            try:
                program.wait_until(partial(_is_up, log))
            except RuntimeError as error:
                program.kill()
                if _TOO_SLOW not in str(error) or number == _STARTS - 1:
                    raise
            else:
                break
        return program


def _is_up(log: Path) -> bool:
    return _UP in log.read_text(errors="replace")
