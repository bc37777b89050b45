"""Every object against the schema of its kind, closed: a field that no one knows is refused."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.manifests import FOLDERS, WEIGHTS, Manifest, of_kind, rendered
from tests.needed_tools import need
from tools.deploy.render_manifests import ROOT
from tools.deploy.render_manifests import rendered as made_files

CRDS = ROOT.parent / "shared/kuberay"
KUBERNETES = "1.34"
OTHERS = {"PodMonitor", "PrometheusRule", "ResourceFlavor", "ClusterQueue", "LocalQueue"}
"""Kinds whose schema is not at hand; what matters of them is checked elsewhere."""


@cache
def crd_validator(kind: str) -> jsonschema.Draft202012Validator:
    """Validator of a kind of KubeRay 1.7.0."""
    file = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip(f"no {file}: the CRD of KubeRay")
    crd = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [version] = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    return jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    """The same schema with no room for fields it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not free:
        result["additionalProperties"] = False
    return result


def errors(manifest: Manifest) -> list[str]:
    """What KubeRay's schema says against an object."""
    validator = crd_validator(manifest["kind"])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_of_kuberay_fit_the_closed_schema(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["apiVersion"] == "ray.io/v1":
            assert errors(manifest) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_built_in_objects_fit_the_schema_of_kubernetes(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["apiVersion"] != "ray.io/v1" and manifest["kind"] not in OTHERS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", WEIGHTS)
def test_the_step_that_loads_weights_fits_the_schema_of_kubernetes(folder: str) -> None:
    for manifest in rendered(folder):
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
    assert errors(manifest) == []
    place = manifest["spec"]
    for name in where:
        place = place[name]
    place[key] = value
    assert len(errors(manifest)) == 1


def test_made_files_are_up_to_date() -> None:
    need("kubectl", package="kubernetes-client (1.21 or later)")
    for path, text in made_files().items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: run `make manifests`"


def test_every_component_is_used_by_an_overlay() -> None:
    used = "".join(path.read_text() for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))
    for component in Path(ROOT / "k8s/components").iterdir():
        assert f"components/{component.name}" in used
