"""What an API server says to an object of KubeRay, by the rules that stand in its CRD.

Its order is the server's: the structural schema is checked with unknown fields refused (``kubectl``
asks for strict field validation), defaults are filled in, keys of list maps must be unique, and the
CEL rules are evaluated, by cel-python. Rules that compare with an older object (``oldSelf``) count
only on an update. What the operator adds is in ``operator_rules.py``. Quotas, webhooks and the cost
limits of CEL are not known here.
"""

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
import jsonschema
import pytest
import yaml
from celpy.adapter import json_to_cel

from tests.k8s.manifests import Manifest
from tools.deploy.render_manifests import ROOT

CRDS = ROOT.parent / "shared/kuberay"

Schema = dict[str, Any]


@cache
def crd_schema(kind: str) -> Schema:
    """Schema of a kind of KubeRay 1.7.0, as its CRD has it; skips where the file is missing."""
    file = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip(f"no {file}: the CRD of KubeRay")
    crd = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [version] = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def refusals(manifest: Manifest, old: Manifest | None = None) -> list[str]:
    """What the API server would say against creating ``manifest``, or updating ``old`` to it."""
    schema = crd_schema(manifest["kind"])
    found = [
        f"{error.json_path}: {error.message}"
        for error in _validator(manifest["kind"]).iter_errors(manifest)
    ]
    if found:  # a server evaluates rules only of what fits the schema
        return found
    new = with_defaults(schema, copy.deepcopy(manifest))
    before = None if old is None else with_defaults(schema, copy.deepcopy(old))
    return [*_name_refusals(manifest), *_walk(schema, new, before, "$")]


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(closed(crd_schema(kind)))


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


def with_defaults(schema: Schema, value: Any) -> Any:
    """``value``, changed in place: what is absent takes the default of its schema."""
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                with_defaults(part, value[name])
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for name in value.keys() - schema.get("properties", {}).keys():
                with_defaults(more, value[name])
    elif isinstance(value, list):
        for one in value:
            with_defaults(schema.get("items", {}), one)
    return value


def _name_refusals(manifest: Manifest) -> list[str]:
    name = manifest["metadata"]["name"]
    subdomain = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    if len(name) <= 253 and re.fullmatch(subdomain, name):
        return []
    return [f"$.metadata.name: {name!r} is no lowercase RFC 1123 subdomain"]


def _walk(schema: Schema, value: Any, old: Any, path: str) -> Iterator[str]:
    """List keys and CEL rules of one place, then of all below it."""
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", []):
        if not _holds(rule["rule"], value, old):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for name, one in value.items():
            part = schema.get("properties", {}).get(name, more)
            if isinstance(part, dict):
                before = old.get(name) if isinstance(old, dict) else None
                yield from _walk(part, one, before, f"{path}.{name}")
    elif isinstance(value, list):
        yield from _repeated(schema, value, path)
        for index, one in enumerate(value):
            # Elements of an atomic list have no older self; list maps of KubeRay hold no rules.
            yield from _walk(schema.get("items", {}), one, None, f"{path}[{index}]")


def _repeated(schema: Schema, values: list[Any], path: str) -> Iterator[str]:
    """Elements of a set or a list map that have the key of an earlier one."""
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("map", "set"):
        return
    names = schema.get("x-kubernetes-list-map-keys", [])
    seen = []
    for one in values:
        key = {name: one.get(name) for name in names} if kind == "map" else one
        if key in seen:
            yield f"{path}: duplicate entry for key {key}"
        seen.append(key)


def _holds(rule: str, value: Any, old: Any) -> bool:
    """Whether a CEL rule holds; a rule of transitions does where nothing is older."""
    transition = re.search(r"\boldSelf\b", rule) is not None
    if transition and old is None:
        return True
    names = {"self": json_to_cel(value)}
    if transition:
        names["oldSelf"] = json_to_cel(old)
    return bool(_program(rule).evaluate(names))


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
