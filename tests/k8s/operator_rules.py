"""What KubeRay's operator 1.7 refuses beyond the schema: an object is stored, and never runs.

The rules of ``ValidateRayJobMetadata``, ``ValidateRayJobSpec``, ``ValidateRayClusterSpec`` and
``ValidateRayCronJobSpec`` in ``ray-operator/controllers/ray/utils/validation.go``, said anew. What
no manifest here uses (a Redis, a cluster chosen by label, deletion rules) is refused whole: that
is stricter.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from tests.k8s.manifests import Manifest

MAX_NAME = 47
RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
FOREIGN = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}
"""Variables by which a head would be given a Redis."""


def operator_refusals(manifest: Manifest) -> list[str]:
    """What the operator would write into the events of a RayJob or a RayCronJob."""
    if manifest["kind"] == "RayCronJob":
        return [*_schedule(manifest["spec"]), *_rayjob(manifest["spec"]["jobTemplate"], {})]
    metadata = manifest["metadata"]
    return [*_name(metadata["name"]), *_rayjob(manifest["spec"], metadata.get("annotations", {}))]


def _name(name: str) -> Iterator[str]:
    if len(name) > MAX_NAME:
        yield f"RayJob name should be no more than {MAX_NAME} characters"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        yield "RayJob name should be a valid DNS1035 label"


def _schedule(spec: Manifest) -> Iterator[str]:
    """Five fields, or one of the names that the operator's parser knows."""
    field = r"(\*|\d+(-\d+)?|[A-Za-z]{3}(-[A-Za-z]{3})?)(/\d+)?"
    fields = rf"{field}(,{field})*"
    names = r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)"
    zone = r"((CRON_)?TZ=\S+ +)?"
    if not re.fullmatch(rf"{zone}({fields}( +{fields}){{4}}|{names})", spec["schedule"].strip()):
        yield "invalid cron schedule"


def _rayjob(spec: Manifest, annotations: dict[str, str]) -> Iterator[str]:
    if not spec.get("shutdownAfterJobFinishes") and (
        spec.get("suspend") or spec.get("ttlSecondsAfterFinished", 0) > 0
    ):
        yield "suspend and ttlSecondsAfterFinished need shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        yield "TTLSecondsAfterFinished must be a non-negative integer"
    if spec.get("deletionStrategy") or spec.get("clusterSelector"):
        yield "deletionStrategy and clusterSelector are not used here"
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
        yield "BackoffLimit is incompatible with InteractiveMode"
    if mode == "SidecarMode" and (spec.get("submitterPodTemplate") or spec.get("submitterConfig")):
        yield "SidecarMode doesn't support a submitter"
    if spec.get("backoffLimit", 0) < 0 or spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "backoffLimit and activeDeadlineSeconds must be positive integers"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no mapping"
    if "rayClusterSpec" in spec:
        yield from _cluster(spec["rayClusterSpec"], annotations)
    else:
        yield "one of RayClusterSpec or ClusterSelector must be set"


def _cluster(spec: Manifest, annotations: dict[str, str]) -> Iterator[str]:
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    for group in (head, *workers):
        yield from _group(group)
    if not head["template"]["spec"].get("containers"):
        return
    variables = {
        one["name"]: one.get("value")
        for one in head["template"]["spec"]["containers"][0].get("env", [])
    }
    options = head.get("rayStartParams", {})
    if (
        FOREIGN & variables.keys()
        or {"redis-password", "redis-username"} & options.keys()
        or spec.get("gcsFaultToleranceOptions")
        or annotations.get("ray.io/ft-enabled")
    ):
        yield "a Redis for the head is not used here"
    yield from _autoscaling(spec, variables)
    if spec.get("authOptions", {}).get("mode") == "token":
        yield from _version(spec.get("rayVersion", ""))


def _group(group: Manifest) -> Iterator[str]:
    name, options = group.get("groupName", "Head"), group.get("rayStartParams", {})
    if not group["template"]["spec"].get("containers"):
        yield f"{name} should have at least one container"
    if group.get("resources") and any(options.get(key) for key in RESOURCES):
        yield f"resource fields should not be set in both rayStartParams and Resources for {name}"
    if "labels" in options:
        yield f"rayStartParams['labels'] is not supported for {name}"
    for key, value in group.get("labels", {}).items():
        part = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
        if not re.fullmatch(rf"([a-z0-9.-]+/)?{part}", key) or not re.fullmatch(
            rf"({part})?", value
        ):
            yield f"invalid label {key} of {name}"


def _autoscaling(spec: Manifest, variables: dict[str, Any]) -> Iterator[str]:
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    on = spec.get("enableInTreeAutoscaling", False)
    version = spec.get("autoscalerOptions", {}).get("version")
    of_variable = variables.get("RAY_enable_autoscaler_v2")
    if not on and of_variable in ("1", "true"):
        yield "RAY_enable_autoscaler_v2 needs enableInTreeAutoscaling"
    if on and any(group.get("suspend") for group in groups):
        yield "a worker group cannot be suspended with Autoscaler enabled"
    if on and version and of_variable is not None:
        yield "autoscalerOptions.version and RAY_enable_autoscaler_v2 are both set"
    if on and (version == "v2" or of_variable in ("1", "true")):
        policies = {group["template"]["spec"].get("restartPolicy", "Never") for group in groups}
        if policies - {"Never"}:
            yield "restartPolicy should be Never or unset when using autoscaler V2"


def _version(text: str) -> Iterator[str]:
    try:
        version = Version(text)
    except InvalidVersion:
        yield f"authOptions.mode is 'token' but RayVersion is {text!r}"
        return
    if version < Version("2.52.0"):
        yield f"authOptions.mode is 'token' but minimum Ray version is 2.52.0, got {text}"
