"""Prometheus with the rules of ``deploy/``, and what of the dashboard's questions it can answer."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from tools.deploy.render_manifests import ROOT, RULES
from tools.trial.programs import Program, free_ports

DASHBOARD = ROOT / "deploy/grafana/dashboards/dladiff.json"
_OF_RAY = [
    {
        "source_labels": ["__name__"],
        "regex": "ray_dladiff_.*|ray_node_.*",
        "action": "keep",
    },
    {"regex": "SessionName|Version", "action": "labeldrop"},
]
"""As in k8s/components/monitoring: of Ray's hundreds of metrics the workers' own, and the load."""


@dataclass(frozen=True)
class Panel:
    """A picture of the dashboard, and whether Prometheus has something to draw in it."""

    title: str
    has_data: bool


class Prometheus:
    """A server that scrapes every second; nothing runs before ``start``."""

    def __init__(
        self,
        folder: Path,
        driver: str,
        ray: Sequence[str],
        scrape_interval: str = "1s",
        exporter: str | None = None,
    ) -> None:
        """
        Args:
            folder: For its data, configuration and log.
            driver: ``host:port`` of the command's ``--metrics-port``.
            ray: The same of Ray's nodes.
            exporter: The same of ``dladiff exporter``, where one runs.
        """
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        scrapes: list[dict[str, Any]] = [
            {"job_name": "driver", "static_configs": [{"targets": [driver]}]},
            {
                "job_name": "ray",
                "static_configs": [{"targets": list(ray)}],
                "metric_relabel_configs": _OF_RAY,
            },
        ]
        if exporter is not None:
            scrapes.append({"job_name": "exporter", "static_configs": [{"targets": [exporter]}]})
        every = {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval}
        config = {"global": every, "rule_files": [str(RULES)], "scrape_configs": scrapes}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [str(find_prometheus()), f"--config.file={folder / 'prometheus.yml'}"]
        command += [
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._program = Program(command, folder / "log")

    def start(self) -> None:
        """Returns once it answers questions."""
        self._program.start()
        self._program.wait_until(self._is_ready)

    def kill(self) -> None:
        self._program.kill()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an expression now: labels as ``metric``, time and text as ``value``."""
        found: list[dict[str, Any]] = self._get("query", {"query": expression})["result"]
        return found

    def series(self, matcher: str) -> list[dict[str, str]]:
        """Labels of all series that were ever seen and match."""
        found: list[dict[str, str]] = self._get("series", {"match[]": matcher})
        return found

    def alerts(self) -> dict[str, str]:
        """State of every alert of the rules: ``inactive``, ``pending`` or ``firing``."""
        groups = self._get("rules", {"type": "alert"})["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

    def panels(self) -> list[Panel]:
        """The dashboard's panels, in its order, and which of them are alive."""
        found = []
        for panel in json.loads(DASHBOARD.read_text())["panels"]:
            expressions = [target["expr"] for target in panel.get("targets", [])]
            if expressions:
                alive = any(self._has_drawn(expression) for expression in expressions)
                found.append(Panel(panel["title"], alive))
        return found

    def _has_drawn(self, expression: str) -> bool:
        """Whether it had a value at some time of the last hour."""
        chosen = expression.replace("$output", ".*")
        return bool(self.query(f"last_over_time(({chosen})[1h:5s])"))

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _get(self, what: str, parameters: Mapping[str, str]) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]


def find_prometheus() -> str | None:
    """Path of the server's program, None if it is not installed."""
    return shutil.which("prometheus")
