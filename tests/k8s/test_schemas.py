"""Every object against the schema of its kind, closed: a field that no one knows is refused."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.k8s.custom_resources import refusals
from tests.k8s.manifests import EXPORTER, FOLDERS, WEIGHTS, Manifest, of_kind, rendered
from tests.k8s.operator_rules import operator_refusals
from tests.needed_tools import need
from tools.deploy.render_manifests import ROOT
from tools.deploy.render_manifests import rendered as made_files

KUBERNETES = "1.34"
OTHERS = {"PodMonitor", "PrometheusRule", "ResourceFlavor", "ClusterQueue", "LocalQueue"}
"""Kinds whose schema is not at hand; what matters of them is checked elsewhere."""


def objects_of_kuberay(folder: str) -> list[Manifest]:
    """Those of a folder, and the RayJob that a schedule creates from a file."""
    found = [one for one in rendered(folder) if one["apiVersion"] == "ray.io/v1"]
    for config in of_kind(folder, "ConfigMap"):
        if "rayjob.yaml" in config["data"]:
            found.append(yaml.safe_load(config["data"]["rayjob.yaml"]))
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_of_kuberay_are_taken_by_the_api_server_and_run_by_the_operator(
    folder: str,
) -> None:
    found = objects_of_kuberay(folder)
    assert found
    for manifest in found:
        assert refusals(manifest) == []
        assert operator_refusals(manifest) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_built_in_objects_fit_the_schema_of_kubernetes(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["apiVersion"] != "ray.io/v1" and manifest["kind"] not in OTHERS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", [*WEIGHTS, *EXPORTER])
def test_what_lies_beside_the_runs_fits_the_schema_of_kubernetes(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["kind"] in OTHERS:
            continue
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ([], "ttlSecondsAfterFinnished", 600),
        (["rayClusterSpec", "headGroupSpec", "rayStartParams"], "num-cpus", 0),
        (["rayClusterSpec", "authOptions"], "mode", "tokens"),
        (["rayClusterSpec", "headGroupSpec", "template", "spec"], "serviceAcountName", "dladiff"),
    ],
)
def test_a_misspelt_field_or_value_would_be_found(where: list[str], key: str, value: Any) -> None:
    [manifest] = copy.deepcopy(of_kind("base", "RayJob"))
    assert refusals(manifest) == []
    place = manifest["spec"]
    for name in where:
        place = place[name]
    place[key] = value
    assert len(refusals(manifest)) == 1


MULTIKUEUE, OPERATOR = "kueue.x-k8s.io/multikueue", "ray.io/kuberay-operator"
DONE = {"jobStatus": "SUCCEEDED", "ttlSeconds": 1}
POLICY = {"policy": "DeleteCluster"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"managedBy": "somebody"}, "must be either"),
        ({"deletionStrategy": {}}, "requires either BOTH"),
        ({"deletionStrategy": {"onSuccess": POLICY}}, "requires either BOTH"),
        (
            {
                "deletionStrategy": {
                    "onSuccess": POLICY,
                    "onFailure": POLICY,
                    "deletionRules": [POLICY | {"condition": DONE}],
                }
            },
            "cannot be used together",
        ),
        (
            {"deletionStrategy": {"deletionRules": [POLICY | {"condition": {"ttlSeconds": 1}}]}},
            "requires either the JobStatus",
        ),
    ],
)
def test_rules_in_cel_refuse_what_the_schema_lets_through(
    change: dict[str, Any], message: str
) -> None:
    [manifest] = copy.deepcopy(of_kind("base", "RayJob"))
    manifest["spec"] |= change
    assert any(message in one for one in refusals(manifest)), refusals(manifest)


def test_a_rule_of_transitions_counts_on_an_update_alone() -> None:
    [old] = copy.deepcopy(of_kind("base", "RayJob"))
    old["spec"]["managedBy"] = OPERATOR
    new = copy.deepcopy(old)
    new["spec"]["managedBy"] = MULTIKUEUE
    assert refusals(new) == []
    assert refusals(old, old) == []
    assert refusals(new, old) == ["$.spec.managedBy: the managedBy field is immutable"]


def test_a_list_map_takes_each_key_once_after_defaulting() -> None:
    [manifest] = copy.deepcopy(of_kind("base", "RayJob"))
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    ports = head["containers"][0]["ports"]
    ports.append({"name": "again", "containerPort": 8080, "protocol": "TCP"})
    [said] = refusals(manifest)
    assert "duplicate entry" in said
    assert "8080" in said


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("metadata.name", "d" * 48, "no more than 47"),
        ("metadata.name", "1-dladiff", "DNS1035"),
        ("spec.shutdownAfterJobFinishes", False, "need shutdownAfterJobFinishes"),
        ("spec.activeDeadlineSeconds", 0, "positive"),
        ("spec.submissionMode", "InteractiveMode", "incompatible with InteractiveMode"),
        ("spec.submissionMode", "SidecarMode", "doesn't support a submitter"),
        ("spec.runtimeEnvYAML", "- a\n- b", "no mapping"),
        ("spec.rayClusterSpec.rayVersion", "2.51.0", "minimum Ray version"),
        ("spec.rayClusterSpec.rayVersion", "nightly", "RayVersion is 'nightly'"),
        ("spec.rayClusterSpec.headGroupSpec.resources", {"CPU": "1"}, "please use|both rayStart"),
        ("spec.rayClusterSpec.headGroupSpec.labels", {"a b": "c"}, "invalid label"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.labels", "a=b", "not supported"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers", [], "one container"),
    ],
)
def test_what_the_operator_would_refuse_is_found(where: str, value: Any, message: str) -> None:
    [manifest] = copy.deepcopy(of_kind("base", "RayJob"))
    *path, last = where.split(".")
    place = manifest
    for name in path:
        place = place[name]
    place[last] = value
    assert re.search(message, "\n".join(operator_refusals(manifest)))


@pytest.mark.parametrize(
    ("schedule", "is_one"),
    [
        ("17 * * * *", True),
        ("@hourly", True),
        ("TZ=Europe/Berlin 0,30 1-5 * * MON-FRI", True),
        ("*/15 * * * *", True),
        ("17 * * *", False),
        ("hourly", False),
        ("0 17 * * * *", False),
    ],
)
def test_a_schedule_has_five_fields_or_a_known_name(schedule: str, is_one: bool) -> None:
    [manifest] = copy.deepcopy(of_kind("overlays/ray-cron-job", "RayCronJob"))
    manifest["spec"]["schedule"] = schedule
    assert operator_refusals(manifest) == ([] if is_one else ["invalid cron schedule"])


def test_made_files_are_up_to_date() -> None:
    need("kubectl", package="kubernetes-client (1.21 or later)")
    for path, text in made_files().items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: run `make manifests`"


def test_every_component_is_used_by_an_overlay() -> None:
    used = "".join(path.read_text() for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))
    for component in Path(ROOT / "k8s/components").iterdir():
        assert f"components/{component.name}" in used
