"""Writes the two files of ``k8s/`` that are made from others; ``make manifests``.

``overlays/scheduled/rayjob.yaml`` is the RayJob of ``overlays/bucket-to-bucket`` as kustomize
renders it, since a ConfigMap can hold a file but no other object. ``components/monitoring`` wraps
the rules of ``deploy/prometheus`` for the Prometheus operator.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
SCHEDULED_RAYJOB = ROOT / "k8s/overlays/scheduled/rayjob.yaml"
PROMETHEUS_RULE = ROOT / "k8s/components/monitoring/prometheus-rule.yaml"


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """The objects that a kustomization renders to.

    Raises:
        subprocess.CalledProcessError: If kustomize refuses it; its words are on stderr.
    """
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def rendered() -> dict[Path, str]:
    """Text by path of every file made here."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dladiff"},
        "spec": yaml.safe_load(RULES.read_text()),
    }
    objects = kustomized(ROOT / "k8s/overlays/bucket-to-bucket")
    [rayjob] = [one for one in objects if one["kind"] == "RayJob"]
    return {
        PROMETHEUS_RULE: _as_yaml(rule, "deploy/prometheus/rules.yml"),
        SCHEDULED_RAYJOB: _as_yaml(rayjob, "k8s/overlays/bucket-to-bucket"),
    }


def _as_yaml(value: dict[str, Any], source: str) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=100, allow_unicode=True)
    return f"# Made from {source} by `make manifests`; edit that.\n{text}"


if __name__ == "__main__":
    if shutil.which("kubectl") is None:
        sys.exit("make manifests: no kubectl; any release since 1.21 will do")
    for path, text in rendered().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
