"""A RayJob run to its end against an HTTPS server that answers as a cluster's API does."""

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ClusterUnreachable, ConfigurationError
from pipeline.kubernetes.api import RayJobApi
from pipeline.kubernetes.follow import run_rayjob
from pipeline.kubernetes.rayjob import Owner, RayJobState, named_rayjob
from tests.pipeline.kubernetes.cluster_api import (
    NAMESPACE,
    RESET,
    TOKEN,
    Answer,
    ClusterApi,
    cluster_api,
    failure,
    make_certificate,
)

NAME = "dladiff-29384756"
OWNER = Owner(NAME, uid="0b0e7a52-6d4c-4a55-9a6b-1f5b9d0f9a11")
PATH = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"
TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "template"},
    "spec": {
        "rayClusterSpec": {
            "headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray-head"}]}}}
        }
    },
}
RAYJOB = named_rayjob(TEMPLATE, NAME, NAMESPACE, OWNER)
EXISTS = failure(409, "AlreadyExists", f'rayjobs.ray.io "{NAME}" already exists')


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterApi]:
    with cluster_api(tmp_path / "serviceaccount") as api:
        api.posts = deque([(201, RAYJOB)])
        yield api


def seen(deployment: str = "", job: str = "", reason: str = "", message: str = "") -> Answer:
    """The RayJob with the status that the operator wrote."""
    status = {
        "jobDeploymentStatus": deployment,
        "jobStatus": job,
        "reason": reason,
        "message": message,
        "rayClusterName": f"{NAME}-x7k2p",
    }
    return 200, {**RAYJOB, "status": {key: value for key, value in status.items() if value}}


def follow(cluster: ClusterApi, owner: Owner | None = OWNER) -> RayJobState:
    api = RayJobApi(cluster.access, retries=2, backoff_s=0.01)
    return run_rayjob(api, RAYJOB, owner, poll_s=0.01)


def test_a_rayjob_is_created_once_and_followed_until_it_succeeds(
    cluster: ClusterApi, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.gets = deque(
        [
            (200, RAYJOB),
            seen("Initializing"),
            seen("Running", "RUNNING"),
            seen("Running", "RUNNING"),
            seen("Complete", "SUCCEEDED"),
        ]
    )
    with caplog.at_level(logging.INFO, "dladiff.kubernetes"):
        assert follow(cluster).exit_code == 0
    assert cluster.created == [RAYJOB]
    assert [asked[:2] for asked in cluster.asked] == [("POST", PATH)] + 5 * [
        ("GET", f"{PATH}/{NAME}")
    ]
    assert {asked[2] for asked in cluster.asked} == {f"Bearer {TOKEN}"}
    states = [record.getMessage().partition(": ")[2] for record in caplog.records[1:]]
    assert states == ["New", "Initializing", "Running, RUNNING", "Complete, SUCCEEDED"]


def test_a_renewed_token_is_used_at_the_next_call(cluster: ClusterApi) -> None:
    cluster.gets = deque([seen("Complete", "SUCCEEDED")])
    api = RayJobApi(cluster.access)
    api.create(NAMESPACE, RAYJOB)
    cluster.access.token_file.write_text("renewed")
    api.read(NAMESPACE, NAME)
    assert [asked[2] for asked in cluster.asked] == [f"Bearer {TOKEN}", "Bearer renewed"]


def test_a_restarted_pod_takes_over_the_rayjob_of_its_job(cluster: ClusterApi) -> None:
    cluster.posts = deque([EXISTS])
    cluster.gets = deque([seen("Running", "RUNNING"), seen("Complete", "SUCCEEDED")])
    assert follow(cluster).exit_code == 0


def test_a_rayjob_that_another_job_created_is_not_taken_over(cluster: ClusterApi) -> None:
    cluster.posts = deque([EXISTS])
    cluster.gets = deque([seen("Running", "RUNNING")])
    with pytest.raises(ConfigurationError, match="did not create"):
        follow(cluster, Owner(NAME, uid="another"))


def test_a_retry_of_the_operator_is_no_end(cluster: ClusterApi) -> None:
    cluster.gets = deque(
        [
            seen("Running", "RUNNING"),
            seen("Retrying", "FAILED", "AppFailed", "failed with exit code 3"),
            seen("Initializing"),
            seen("Complete", "SUCCEEDED"),
        ]
    )
    assert follow(cluster).exit_code == 0


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code 1, "), 1),
        (("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code 2, "), 2),
        (("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code 3, "), 3),
        (("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code -9"), 3),
        (("Failed", "RUNNING", "DeadlineExceeded", "The RayJob has passed the deadline"), 3),
        (("Failed", "", "SubmissionFailed", "Job submission has failed"), 3),
        (("Complete", "STOPPED", "", ""), 3),
        (("ValidationFailed", "", "ValidationFailed", "The RayJob spec is invalid"), 1),
    ],
)
def test_every_end_has_an_exit_code(
    cluster: ClusterApi, status: tuple[str, ...], exit_code: int
) -> None:
    cluster.gets = deque([seen("Running"), seen(*status)])
    assert follow(cluster).exit_code == exit_code


def test_the_log_says_why_but_does_not_repeat_the_output_of_the_run(
    cluster: ClusterApi, caplog: pytest.LogCaptureFixture
) -> None:
    message = "Job entrypoint command failed with exit code 3, last logs: photo of ann"
    cluster.gets = deque([seen("Failed", "FAILED", "AppFailed", message)])
    with caplog.at_level(logging.INFO, "dladiff.kubernetes"):
        follow(cluster)
    assert caplog.records[-1].getMessage().endswith("Failed, FAILED, AppFailed, exit code 3")


def test_lost_connections_and_busy_servers_are_tried_again(cluster: ClusterApi) -> None:
    busy = failure(503, "ServiceUnavailable", "etcdserver: leader changed")
    throttled = failure(429, "TooManyRequests", "too many requests")
    # The first POST may have worked although its answer was lost: then the name exists.
    cluster.posts = deque([RESET, busy, EXISTS])
    cluster.gets = deque(
        [seen("Running"), RESET, throttled, seen("Running"), RESET, seen("Complete", "SUCCEEDED")]
    )
    assert follow(cluster).exit_code == 0


@pytest.mark.parametrize("answer", [RESET, failure(503, "ServiceUnavailable", "overloaded")])
def test_an_api_that_stays_away_is_the_environments_fault(
    cluster: ClusterApi, answer: Answer
) -> None:
    cluster.posts = deque([answer])
    with pytest.raises(ClusterUnreachable, match=r"does not answer|overloaded"):
        follow(cluster)
    assert len(cluster.asked) == 3  # two retries


def test_a_missing_permission_names_the_rule_to_add(cluster: ClusterApi) -> None:
    message = (
        'rayjobs.ray.io is forbidden: User "system:serviceaccount:photos:default" cannot create '
        'resource "rayjobs" in API group "ray.io" in the namespace "photos"'
    )
    cluster.posts = deque([failure(403, "Forbidden", message)])
    with pytest.raises(ConfigurationError, match="serviceaccount:photos:default") as refused:
        follow(cluster)
    assert 'resources: ["rayjobs"], verbs: ["create"]' in str(refused.value)
    assert len(cluster.asked) == 1


def test_a_cluster_without_kuberay_is_named_as_such(cluster: ClusterApi) -> None:
    cluster.posts = deque([(404, "404 page not found\n")])
    with pytest.raises(ConfigurationError, match="install the KubeRay operator"):
        follow(cluster)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (failure(401, "Unauthorized", "Unauthorized"), "refuses this pod's token"),
        (failure(404, "NotFound", 'namespaces "photos" not found'), "404: namespaces"),
        (failure(422, "Invalid", "spec.ttlSecondsAfterFinished: Invalid"), "422: spec.ttl"),
    ],
)
def test_other_refusals_carry_the_apis_own_words(
    cluster: ClusterApi, answer: Answer, expected: str
) -> None:
    cluster.posts = deque([answer])
    with pytest.raises(ConfigurationError, match=expected):
        follow(cluster)


def test_a_rayjob_deleted_while_it_runs_is_left_to_the_next_run(cluster: ClusterApi) -> None:
    gone = failure(404, "NotFound", f'rayjobs.ray.io "{NAME}" not found')
    cluster.gets = deque([seen("Running"), gone])
    with pytest.raises(ClusterUnreachable, match="goes on where it stopped"):
        follow(cluster)


def test_a_server_that_the_cluster_does_not_vouch_for_gets_no_token(
    cluster: ClusterApi, tmp_path: Path
) -> None:
    make_certificate(tmp_path / "stranger")
    cluster.access.ca_file.write_bytes((tmp_path / "stranger/ca.crt").read_bytes())
    with pytest.raises(ConfigurationError, match="is not signed by"):
        follow(cluster)
    assert cluster.asked == []
