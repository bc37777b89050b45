"""A run waits for the volumes that it reads, or is refused before it asks for GPUs."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError
from pipeline.kubernetes.api import RayJobApi
from pipeline.kubernetes.volumes import claims_of, wait_for_volumes
from tests.pipeline.kubernetes.cluster_api import Answer, ClusterApi, cluster_api, failure

NOT_FOUND = failure(404, "NotFound", "not found")
CLAIM: Answer = (200, {"kind": "PersistentVolumeClaim"})


def pods(*claims: str) -> dict[str, Any]:
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    return {"template": {"spec": {"volumes": [*volumes, {"name": "tmp", "emptyDir": {}}]}}}


RAYJOB = {
    "metadata": {"namespace": "photos"},
    "spec": {
        "rayClusterSpec": {
            "headGroupSpec": pods("weights"),
            "workerGroupSpecs": [pods("weights", "more")],
        }
    },
}
ONE_CLAIM: dict[str, Any] = {
    "metadata": {"namespace": "photos"},
    "spec": {"rayClusterSpec": {"headGroupSpec": pods("weights")}},
}


def job(*conditions: str) -> Answer:
    found = [{"type": name, "status": "True"} for name in conditions]
    return 200, {"kind": "Job", "status": {"conditions": found}}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterApi]:
    with cluster_api(tmp_path) as found:
        yield found


def wait(cluster: ClusterApi, patience_s: float = 60) -> None:
    wait_for_volumes(RayJobApi(cluster.access), ONE_CLAIM, poll_s=0.02, patience_s=patience_s)


def test_claims_of_all_pods_are_named_once() -> None:
    assert claims_of(RAYJOB) == ["more", "weights"]


def test_it_waits_until_the_job_is_complete(cluster: ClusterApi) -> None:
    cluster.gets = deque([CLAIM, job(), job(), job("SuccessCriteriaMet", "Complete")])
    wait(cluster)
    paths = [path for _, path, _ in cluster.asked]
    assert paths == [
        "/api/v1/namespaces/photos/persistentvolumeclaims/weights",
        *["/apis/batch/v1/namespaces/photos/jobs/weights"] * 3,
    ]


def test_a_volume_that_was_filled_by_other_means_is_taken(cluster: ClusterApi) -> None:
    cluster.gets = deque([CLAIM, NOT_FOUND])
    wait(cluster)


@pytest.mark.parametrize(
    ("answers", "remedy"),
    [
        ([NOT_FOUND], "apply the weights first"),
        ([CLAIM, job("Failed")], "logs job/weights, then delete"),
        ([CLAIM, job()], "is not complete after 0 s"),
        ([failure(403, "Forbidden", "may not get")], "rbac.yaml"),
    ],
)
def test_what_cannot_become_right_is_refused_with_the_remedy(
    cluster: ClusterApi, answers: list[Answer], remedy: str
) -> None:
    cluster.gets = deque(answers)
    with pytest.raises(ConfigurationError, match=remedy):
        wait(cluster, patience_s=0.1)
    assert cluster.created == []
