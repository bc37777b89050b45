"""The commands of docs/operations.md, in their order, by the real kubectl against an API server."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.api_server import ApiServer, api_server
from tests.k8s.custom_resources import crd_schema
from tests.k8s.manifests import FOLDERS, rendered
from tests.needed_tools import need
from tools.deploy.render_manifests import ROOT


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApiServer]:
    need("kubectl", package="kubernetes-client (1.21 or later)")
    crd_schema("RayJob")  # skips without the CRDs
    with api_server(tmp_path / "api") as found:
        yield found


def kubectl(cluster: ApiServer, command: str, cwd: Path = ROOT) -> str:
    """What kubectl says, its exit code in the last line."""
    home = cluster.kubeconfig.parent  # its cache of discovery, which must not outlive the server
    done = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(home)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def documented(heading: str) -> list[str]:
    """The kubectl and cp commands of a section of docs/operations.md, in their order."""
    text = (ROOT / "docs/operations.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [
        line.split("  #")[0].strip()
        for block in re.findall(r"```\n(.*?)```", section, re.S)
        for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(("kubectl", "cp"))]


def test_the_documented_commands_install_weights_then_a_run_then_a_schedule(
    cluster: ApiServer, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    shutil.copytree(tmp_path / "k8s/overlays/scheduled", tmp_path / "k8s/overlays/my-schedule")
    commands = [*documented("Install"), *documented("Schedule")]
    assert len(commands) >= 6
    for command in commands:
        assert kubectl(cluster, command, tmp_path).endswith("exit code 0"), command
    kinds = [kind for kind, _ in cluster.writes]
    assert kinds[0] == "Namespace"
    assert kinds.index("PersistentVolumeClaim") < kinds.index("RayJob") < kinds.index("CronJob")
    assert kinds.index("Job") < kinds.index("RayJob")
    # What a run's pods name is there before the operator sees the run.
    for needed in ("ServiceAccount", "ConfigMap", "NetworkPolicy"):
        assert kinds.index(needed) < kinds.index("RayJob"), needed


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one != "base"])
def test_a_dry_run_on_the_server_takes_every_overlay_and_stores_nothing(
    cluster: ApiServer, folder: str
) -> None:
    assert kubectl(cluster, "kubectl apply -k k8s/namespace").endswith("exit code 0")
    before = list(cluster.writes)
    said = kubectl(cluster, f"kubectl apply --server-side --dry-run=server -k k8s/{folder}")
    assert said.endswith("exit code 0"), said
    assert said.count("serverside-applied (server dry run)") == len(rendered(folder))
    assert cluster.writes == before


def test_a_dry_run_before_the_namespace_is_refused(cluster: ApiServer) -> None:
    """A dry run stores no namespace, so it tells nothing before the first step; the docs say so."""
    said = kubectl(cluster, "kubectl apply --server-side --dry-run=server -k k8s/overlays/tls")
    assert "namespaces 'dladiff' not found" in said
    assert not said.endswith("exit code 0")


def test_a_jobs_template_cannot_be_changed_and_the_docs_say_what_then(
    cluster: ApiServer, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    command = "kubectl apply --server-side -k k8s/overlays/bucket-to-bucket/weights"
    assert kubectl(cluster, command, tmp_path).endswith("exit code 0")
    load = tmp_path / "k8s/weights/load.yaml"
    load.write_text(load.read_text().replace("memory: 4Gi", "memory: 8Gi"))
    assert "field is immutable" in kubectl(cluster, command, tmp_path)
    assert "delete it\nto load another" in (ROOT / "docs/operations.md").read_text()


def test_the_server_of_these_tests_refuses_what_a_real_one_would(
    cluster: ApiServer, tmp_path: Path
) -> None:
    kubectl(cluster, "kubectl apply -k k8s/namespace")
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (tmp_path / "k8s/base/network-policy.yaml").write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: dladiff}\n"
        "spec: {podSelektor: {}}\n"
    )
    rayjob = tmp_path / "k8s/base/rayjob.yaml"
    rayjob.write_text(rayjob.read_text().replace("rayVersion: 2.60.0", "rayVersion: 2.51.0"))
    said = kubectl(
        cluster, "kubectl apply --server-side -k k8s/overlays/bucket-to-bucket", tmp_path
    )
    assert "podSelektor" in said
    assert "minimum Ray version is 2.52.0" in said
