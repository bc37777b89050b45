"""RayJob manifests: which are taken, and what is changed in them."""

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError
from pipeline.kubernetes.rayjob import Owner, belongs_to, named_rayjob, read_rayjob

RAYJOB = """
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: template, labels: {team: photos}}
spec:
  rayClusterSpec:
    headGroupSpec:
      template:
        spec:
          containers:
          - name: ray-head
            env: [{name: DLADIFF_RUN_ID, value: template}, {name: HF_HUB_OFFLINE, value: "1"}]
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}\n"


def rayjob(folder: Path, text: str = RAYJOB) -> dict[str, Any]:
    (folder / "rayjob.yaml").write_text(text)
    return read_rayjob(folder / "rayjob.yaml")


def test_the_rayjob_is_found_among_what_kustomize_renders(tmp_path: Path) -> None:
    found = rayjob(tmp_path, f"{CONFIG_MAP}---\n{RAYJOB}---\n{CONFIG_MAP}")
    assert found["metadata"]["name"] == "template"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONFIG_MAP, "expected one RayJob, found 0"),
        (f"{RAYJOB}---{RAYJOB}", "expected one RayJob, found 2"),
        (RAYJOB.replace("ray.io/v1", "ray.io/v1alpha1"), "expected apiVersion ray.io/v1"),
        ("kind: [", "is not valid YAML"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        rayjob(tmp_path, text)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read /nowhere/rayjob\.yaml: No such"):
        read_rayjob(Path("/nowhere/rayjob.yaml"))


def test_name_run_and_owner_are_set_and_nothing_else_is_changed(tmp_path: Path) -> None:
    template = rayjob(tmp_path)
    before = copy.deepcopy(template)
    owner = Owner("dladiff-29384756", "uid-1")
    made = named_rayjob(template, "dladiff-29384756", "photos", owner)
    assert template == before
    assert made["metadata"] == {
        "name": "dladiff-29384756",
        "namespace": "photos",
        "labels": {"team": "photos"},
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "dladiff-29384756", "uid": "uid-1"}
        ],
    }
    [container] = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {"name": "HF_HUB_OFFLINE", "value": "1"},
        {"name": "DLADIFF_RUN_ID", "value": "dladiff-29384756"},
    ]
    assert belongs_to(made, owner)
    assert not belongs_to(made, Owner("dladiff-29384756", "uid-2"))
    assert not belongs_to(template, owner)


@pytest.mark.parametrize("name", ["d" * 48, "Dladiff", "4photos", "ends-", "a.b", ""])
def test_names_that_the_operator_refuses_are_refused_here(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="at most 47"):
        named_rayjob(rayjob(tmp_path), name, "photos")
    assert named_rayjob(rayjob(tmp_path), "d" * 47, "photos")


def test_a_rayjob_without_a_head_is_refused(tmp_path: Path) -> None:
    template = rayjob(tmp_path)
    template["spec"] = {"clusterSelector": {"ray.io/cluster": "shared"}}
    with pytest.raises(ConfigurationError, match="no container for the Ray head"):
        named_rayjob(template, "photos", "photos")
