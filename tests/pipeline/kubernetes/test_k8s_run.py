"""The command in a pod: environment and files in, exit code out."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.kubernetes import api as api_module
from tests.pipeline.kubernetes.cluster_api import NAMESPACE, ClusterApi, cluster_api, failure
from tests.pipeline.kubernetes.test_rayjob import RAYJOB

pytestmark = pytest.mark.usefixtures("restored_logging")

NAME = "dladiff-29384756"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "rayjob.yaml"
    path.write_text(RAYJOB)
    return path


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterApi]:
    """A cluster whose API this process finds as a pod does."""
    folder = tmp_path / "serviceaccount"
    with cluster_api(folder) as cluster:
        host, port = cluster.access.server.removeprefix("https://").split(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.setenv("DLADIFF_JOB_NAME", NAME)
        monkeypatch.setattr(api_module, "SERVICE_ACCOUNT", folder)
        yield cluster


def k8s_run(manifest: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["k8s-run", str(manifest), *options])


def status(deployment: str, job: str, message: str = "") -> tuple[int, dict[str, object]]:
    found = {"jobDeploymentStatus": deployment, "jobStatus": job, "message": message}
    return 200, {"metadata": {"name": NAME}, "status": found}


def test_the_pods_environment_gives_name_owner_and_namespace(
    pod: ClusterApi, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLADIFF_JOB_UID", "uid-1")
    pod.posts = deque([(201, {})])
    pod.gets = deque([status("Running", "RUNNING"), status("Complete", "SUCCEEDED")])
    result = k8s_run(manifest, "--poll-seconds", "0.1")
    assert result.exit_code == 0, result.output
    [made] = pod.created
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == (NAME, NAMESPACE)
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert made["spec"].keys() == yaml.safe_load(RAYJOB)["spec"].keys()


def test_the_manifests_own_namespace_is_kept(pod: ClusterApi, manifest: Path) -> None:
    manifest.write_text(RAYJOB.replace("{name: template", "{name: template, namespace: other"))
    pod.posts = deque([(201, {})])
    pod.gets = deque([status("Complete", "SUCCEEDED")])
    assert k8s_run(manifest).exit_code == 0
    assert pod.asked[0][1] == "/apis/ray.io/v1/namespaces/other/rayjobs"


def test_the_runs_own_exit_code_is_passed_on(pod: ClusterApi, manifest: Path) -> None:
    pod.posts = deque([(201, {})])
    message = "Job entrypoint command failed with exit code 3, last logs"
    pod.gets = deque([status("Failed", "FAILED", message)])
    assert k8s_run(manifest).exit_code == 3


def test_a_refusal_is_one_message_and_exit_code_1(pod: ClusterApi, manifest: Path) -> None:
    pod.posts = deque([failure(403, "Forbidden", "rayjobs.ray.io is forbidden: User x")])
    result = k8s_run(manifest)
    assert result.exit_code == 1
    assert "dladiff: rayjobs.ray.io is forbidden" in result.stderr
    assert "Traceback" not in result.stderr


def test_outside_of_a_cluster_the_command_says_so(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = k8s_run(manifest, "--name", NAME)
    assert result.exit_code == 1
    assert "runs in a pod" in result.stderr


def test_a_pod_without_its_token_names_what_is_missing(pod: ClusterApi, manifest: Path) -> None:
    pod.access.token_file.unlink()
    result = k8s_run(manifest)
    assert result.exit_code == 1
    assert "no token in" in result.stderr
    assert "automountServiceAccountToken" in result.stderr
