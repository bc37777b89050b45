"""Grafana with the dashboard of ``deploy/``, where it is installed. Debian does not have it."""

import json
import shutil
from pathlib import Path

import requests

from tools.trial.monitoring import DASHBOARD
from tools.trial.programs import Program, free_ports


class Grafana:
    """A server that anybody on this machine may look at; nothing runs before ``start``."""

    def __init__(self, folder: Path, prometheus_url: str) -> None:
        """
        Args:
            folder: For its data, what it is provisioned with, and its log.
            prometheus_url: Where the dashboard's numbers come from.
        """
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/dashboards"
        self._root = f"http://127.0.0.1:{port}"
        source = {"name": "Prometheus", "type": "prometheus", "url": prometheus_url}
        sources = [source | {"uid": "prometheus", "isDefault": True}]
        boards = [{"name": "dladiff", "type": "file", "options": {"path": str(DASHBOARD.parent)}}]
        # JSON is YAML.
        for kind, content in (("datasources", sources), ("dashboards", boards)):
            key = kind if kind == "datasources" else "providers"
            place = folder / "provisioning" / kind
            place.mkdir(parents=True)
            (place / "trial.yml").write_text(json.dumps({"apiVersion": 1, key: content}))
        environment = {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": str(folder / "data"),
            "GF_PATHS_LOGS": str(folder),
            "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        }
        command = [str(find_grafana()), "server", "--homepath=/usr/share/grafana"]
        self._program = Program(command, folder / "log", environment)

    def start(self) -> None:
        """Returns once it answers."""
        self._program.start()
        self._program.wait_until(self._is_healthy)

    def kill(self) -> None:
        self._program.kill()

    def _is_healthy(self) -> bool:
        try:
            return requests.get(f"{self._root}/api/health", timeout=5).ok
        except requests.ConnectionError:
            return False


def find_grafana() -> str | None:
    """Path of the server's program, None if it is not installed."""
    return shutil.which("grafana")
