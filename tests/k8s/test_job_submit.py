"""The entrypoint of a manifest through ``ray job submit``, scraped by a real Prometheus."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import boto3
import pytest
import requests

from pipeline.inspection.verify import verify_output
from pipeline.manifest_row import RowStatus
from tests.k8s.manifests import ray_pods, rayjob_specs, variables
from tests.needed_tools import need
from tests.sample_photos import face_album
from tests.seaweed import running_server
from tools.trial.monitoring import Prometheus
from tools.trial.programs import free_ports
from tools.trial.ray_nodes import RayCluster

pytestmark = pytest.mark.faults

INPUT, OUTPUT = "photos-uploaded", "photos-protected"
"""Buckets of k8s/overlays/bucket-to-bucket."""
PEOPLE = {"zoe-quill": 2, "max-ohm": 1, "ida-vane": 1}
CONFIG = """
method: {preset: zero-shot, threads: 1, loop: {num_steps: 2}}
operation: {workers: 1, worker_memory_gb: 1, canary: {num_sets: 0}}
"""
LABELS = {
    "driver": {
        *("__name__", "instance", "job", "output", "status", "stage", "cause", "le"),
        *("operation", "state", "run", "method", "version", "encoder", "reached"),
    },
    "ray": {
        *("__name__", "instance", "job", "output", "status", "cause", "operation"),
        *("WorkerId", "NodeAddress", "Component", "JobId"),
        *("otel_scope_name", "otel_scope_schema_url", "otel_scope_version"),
    },
}
"""By scrape job: all that a series of ours may be told by."""


@dataclass
class Submitted:
    """A job that was submitted and has ended, and what Prometheus saw of it."""

    done: subprocess.CompletedProcess[str]
    prometheus: Prometheus
    ray_metrics: str
    """Everything that Ray exports at its end."""


@pytest.fixture(scope="module")
def submitted() -> Iterator[Submitted]:
    """The manifest's own entrypoint; only port and configuration are this machine's."""
    need("prometheus", package="prometheus")
    [spec] = rayjob_specs("overlays/bucket-to-bucket")
    head = ray_pods(spec)[0]["spec"]["containers"][0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="job-")))
        (folder / "store").mkdir()
        stack.enter_context(running_server(folder / "store"))
        upload(folder)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        cluster = RayCluster(folder, head_cpus=2)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for name, value in {**variables(head), **cluster.environment, "PATH": path}.items():
            patch.setenv(name, value)
        stack.callback(cluster.kill)
        cluster.start_head()
        [port] = free_ports(1)
        targets = cluster.metrics_targets
        prometheus = Prometheus(folder / "prometheus", f"127.0.0.1:{port}", targets, "500ms")
        stack.callback(prometheus.kill)
        prometheus.start()
        entrypoint = on_this_machine(spec["entrypoint"], folder, port)
        done = submit(cluster.jobs_url, entrypoint)
        ray_metrics = requests.get(f"http://{targets[0]}/metrics", timeout=30).text
        yield Submitted(done, prometheus, ray_metrics)


def submit(jobs_url: str, entrypoint: str) -> subprocess.CompletedProcess[str]:
    """As the operator's submitter does, which comes again while the head is not ready for jobs."""
    command = ["ray", "job", "submit", f"--address={jobs_url}", "--", *entrypoint.split()]
    for _ in range(8):
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        if "No available agent" not in done.stderr:
            break
        time.sleep(3)
    return done


def upload(folder: Path) -> None:
    client: Any = boto3.client("s3")
    with contextlib.closing(client):
        for bucket in (INPUT, OUTPUT):
            client.create_bucket(Bucket=bucket)
        album = face_album(folder / "album", PEOPLE)
        for photo in album.rglob("*.png"):
            client.upload_file(str(photo), INPUT, f"people/{photo.relative_to(album)}")


def on_this_machine(entrypoint: str, folder: Path, port: int) -> str:
    (folder / "protect.yaml").write_text(CONFIG)
    for there, here in (
        ("/etc/dladiff/protect.yaml", str(folder / "protect.yaml")),
        ("--metrics-port 9464", f"--metrics-port {port}"),
    ):
        assert there in entrypoint
        entrypoint = entrypoint.replace(there, here)
    return entrypoint


def test_the_entrypoint_of_a_manifest_protects_from_bucket_to_bucket(submitted: Submitted) -> None:
    assert submitted.done.returncode == 0, submitted.done.stdout + submitted.done.stderr
    found = verify_output(f"s3://{OUTPUT}/people", f"s3://{INPUT}/people")
    assert found.num_findings == 0
    client: Any = boto3.client("s3")
    with contextlib.closing(client):
        keys = [one["Key"] for one in client.list_objects_v2(Bucket=OUTPUT)["Contents"]]
    assert sum(key.startswith("people/images/") for key in keys) == sum(PEOPLE.values())
    assert "people/runs/dladiff/_FINISHED.json" in keys  # the run's id is that of the manifest


def test_prometheus_sees_driver_and_workers(submitted: Submitted) -> None:
    def largest(expression: str) -> float:
        samples = submitted.prometheus.query(f"max_over_time(({expression})[10m:1s])")
        return max(float(sample["value"][1]) for sample in samples)

    assert largest("dladiff_planned_photos") == sum(PEOPLE.values())
    assert largest('sum(dladiff_decided_photos_total{status="protected"})') >= 1
    assert largest('sum(ray_dladiff_photos_total{status="protected"})') >= 1
    assert largest("sum by (stage) (dladiff_stage_seconds_total)") > 0
    assert largest('dladiff_workers{state="alive"}') == 1
    assert largest('sum(dladiff_store_requests_total{operation="copy"})') >= 1
    assert largest('sum(ray_dladiff_store_requests_total{operation="write"})') >= 1


def test_series_are_few_and_name_nobody(submitted: Submitted) -> None:
    series = submitted.prometheus.series('{__name__=~"(ray_)?dladiff_.+"}')
    for one in series:
        assert one.keys() <= LABELS[one["job"]], one
    values = {
        name: {one[name] for one in series if name in one} for name in set().union(*LABELS.values())
    }
    assert len(values["output"]) == 1
    assert values["status"] <= set(get_args(RowStatus))
    assert len(values["stage"]) <= 15
    assert len(values["WorkerId"]) <= 2  # one, and one more if it died
    assert len(series) <= 200
    everything = submitted.ray_metrics + str(series) + submitted.done.stdout + submitted.done.stderr
    told = re.findall(rf"{'|'.join(PEOPLE)}|\b\d\.png", everything)
    assert told == []
