"""The manifests as kustomize renders them, and how to reach into them."""

import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from tests.needed_tools import need
from tools.deploy.render_manifests import ROOT, kustomized

Manifest = dict[str, Any]

OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
FOLDERS = ["base", *(f"overlays/{name}" for name in OVERLAYS)]
WEIGHTS = ["weights", "overlays/bucket-to-bucket/weights"]
"""The step before a run: namespace, volume, and the Job that fills it."""
EXPORTER = ["exporter", "overlays/bucket-to-bucket/exporter"]
"""What stays beside the runs."""


@cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    """Every object of a folder of ``k8s``; skips without kubectl."""
    need("kubectl", package="kubernetes-client (1.21 or later)")
    try:
        return tuple(kustomized(ROOT / "k8s" / folder))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"kubectl kustomize k8s/{folder} failed: {error}")


def of_kind(folder: str, kind: str) -> list[Manifest]:
    """The objects of one kind in a folder of ``k8s``."""
    return [one for one in rendered(folder) if one["kind"] == kind]


def rayjob_specs(folder: str) -> list[Manifest]:
    """Specifications of all RayJobs in a folder: by themselves, on a schedule, or in a file."""
    specs = [one["spec"] for one in of_kind(folder, "RayJob")]
    specs += [one["spec"]["jobTemplate"] for one in of_kind(folder, "RayCronJob")]
    for config in of_kind(folder, "ConfigMap"):
        if "rayjob.yaml" in config["data"]:
            specs.append(yaml.safe_load(config["data"]["rayjob.yaml"])["spec"])
    return specs


def ray_pods(spec: Manifest) -> list[Manifest]:
    """Pod templates of the head and of every worker group."""
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def all_pods(folder: str) -> Iterator[Manifest]:
    """Every pod template of a folder."""
    for spec in rayjob_specs(folder):
        yield from ray_pods(spec)
        yield spec["submitterPodTemplate"]
    for cron_job in of_kind(folder, "CronJob"):
        yield cron_job["spec"]["jobTemplate"]["spec"]["template"]


def variables(container: Manifest) -> dict[str, str]:
    """Environment of a container whose values are written in the manifest."""
    return {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
