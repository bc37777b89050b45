"""What KubeRay's operator refuses or needs beyond its schema, and what the manifests promise."""

import os
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from typer.main import get_command

from pipeline.cli import app
from pipeline.config import load_config
from pipeline.kubernetes.rayjob import MAX_NAME_LENGTH, named_rayjob, read_rayjob
from tests.k8s.manifests import (
    EXPORTER,
    FOLDERS,
    Manifest,
    all_pods,
    of_kind,
    ray_pods,
    rayjob_specs,
    rendered,
    variables,
)
from tools.deploy.render_manifests import ROOT, kustomized

BYTES = {"Mi": 2**20, "Gi": 2**30}


def num_bytes(quantity: str) -> int:
    return int(quantity[:-2]) * BYTES[quantity[-2:]]


@pytest.fixture(params=[folder for folder in FOLDERS if folder != "base"] + ["base"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spec(folder: str) -> Manifest:
    """The RayJob's specification of a folder: each has one."""
    [found] = rayjob_specs(folder)
    return found


def test_names_leave_room_for_what_the_operator_appends(folder: str) -> None:
    for manifest in rendered(folder):
        name = manifest["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
        if manifest["kind"] in ("RayJob", "RayCronJob"):
            assert len(name) <= MAX_NAME_LENGTH
        if manifest["kind"] == "CronJob":  # its Job: a dash and minutes since 1970
            assert len(name) + 9 <= MAX_NAME_LENGTH


def test_everything_lies_in_the_namespace_that_comes_with_it(folder: str) -> None:
    [namespace] = of_kind(folder, "Namespace")
    for manifest in rendered(folder):
        cluster_wide = manifest["kind"] in (
            "Namespace",
            "ClusterQueue",
            "ResourceFlavor",
            "PriorityClass",
        )
        expected = None if cluster_wide else namespace["metadata"]["name"]
        assert manifest["metadata"].get("namespace") == expected, manifest["kind"]


def test_the_cluster_ends_by_itself(spec: Manifest) -> None:
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] >= 0
    assert 0 <= spec["backoffLimit"] <= 3
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"] <= 86400


def test_the_head_does_no_work_but_the_driver(spec: Manifest) -> None:
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["entrypointNumCpus"] == 0
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_token_authentication_is_on_and_rays_version_is_the_tested_one(spec: Manifest) -> None:
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["rayVersion"] == version("ray")
    assert Version(version("ray")) >= Version("2.52")  # the operator refuses older ones


def test_the_operators_head_service_finds_its_pod(spec: Manifest) -> None:
    for pod in ray_pods(spec):
        assert "app.kubernetes.io/name" not in pod["metadata"]["labels"]


def test_ray_comes_first_and_exports_metrics_where_they_are_scraped(spec: Manifest) -> None:
    head, *workers = ray_pods(spec)
    for pod in (head, *workers):
        container = pod["spec"]["containers"][0]
        ports = {one["name"]: one["containerPort"] for one in container["ports"]}
        assert container["name"].startswith("ray-")
        assert ports["metrics"] == 8080
    ports = {one["name"]: one["containerPort"] for one in head["spec"]["containers"][0]["ports"]}
    driver_port = re.search(r"--metrics-port (\d+)", spec["entrypoint"])
    assert driver_port is not None
    assert ports["driver-metrics"] == int(driver_port[1])


def test_workers_have_a_gpu_and_may_run_where_gpus_are(spec: Manifest) -> None:
    for pod in ray_pods(spec)[1:]:
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] >= 1
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
            "spec"
        ]["tolerations"]


def test_shared_memory_is_bounded_and_counted(spec: Manifest) -> None:
    for pod in ray_pods(spec):
        container = pod["spec"]["containers"][0]
        [name] = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/dev/shm"]
        [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == name]
        assert volume["emptyDir"]["medium"] == "Memory"
        limit = num_bytes(container["resources"]["limits"]["memory"])
        assert num_bytes(volume["emptyDir"]["sizeLimit"]) <= limit / 2


def test_models_are_never_fetched_by_a_run(spec: Manifest) -> None:
    for pod in ray_pods(spec):
        container = pod["spec"]["containers"][0]
        assert variables(container)["HF_HUB_OFFLINE"] == "1"
        for mount in container["volumeMounts"]:
            if mount["mountPath"] in ("/models", "/etc/dladiff"):
                assert mount["readOnly"] is True


def test_the_workers_memory_fits_their_pods(folder: str, spec: Manifest, tmp_path: Path) -> None:
    config = load_config(file=protect_yaml(folder, tmp_path))
    for pod in ray_pods(spec)[1:]:
        container = pod["spec"]["containers"][0]
        shared = next(v for v in pod["spec"]["volumes"] if v["name"] == "shared-memory")
        free = num_bytes(container["resources"]["limits"]["memory"]) - num_bytes(
            shared["emptyDir"]["sizeLimit"]
        )
        assert config.operation.worker_memory_gb * 2**30 <= free
        assert config.method.threads < float(container["resources"]["limits"]["cpu"])


def protect_yaml(folder: str, tmp_path: Path) -> Path:
    """The settings file of a folder's ConfigMap."""
    [text] = [
        one["data"]["protect.yaml"]
        for one in of_kind(folder, "ConfigMap")
        if "protect.yaml" in one["data"]
    ]
    (tmp_path / "protect.yaml").write_text(text)
    return tmp_path / "protect.yaml"


def test_settings_that_need_weights_come_with_their_volume(
    folder: str, spec: Manifest, tmp_path: Path
) -> None:
    checkpoint = load_config(file=protect_yaml(folder, tmp_path)).method.model.checkpoint
    mounts = [m["mountPath"] for pod in ray_pods(spec) for m in mounts_of(pod)]
    assert mounts.count("/models") == (2 if str(checkpoint).startswith("/models/") else 0)


def mounts_of(pod: Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pod["spec"]["containers"][0]["volumeMounts"]
    return found


def test_every_retry_continues_the_run_of_the_rayjobs_name(folder: str) -> None:
    for manifest in of_kind(folder, "RayJob"):
        head = ray_pods(manifest["spec"])[0]["spec"]["containers"][0]
        assert variables(head)["DLADIFF_RUN_ID"] == manifest["metadata"]["name"]


def test_a_suffix_reaches_every_name_in_a_rayjob(tmp_path: Path) -> None:
    rendered("base")  # skips without kubectl
    base = os.path.relpath(ROOT / "k8s/overlays/bucket-to-bucket", tmp_path.resolve())
    text = f'resources: [{base}]\nnameSuffix: "-2"\n'
    (tmp_path / "kustomization.yaml").write_text(text)
    [rayjob] = [one for one in kustomized(tmp_path) if one["kind"] == "RayJob"]
    head = ray_pods(rayjob["spec"])[0]["spec"]
    assert rayjob["metadata"]["name"] == "dladiff-2"
    assert variables(head["containers"][0])["DLADIFF_RUN_ID"] == "dladiff-2"
    assert head["serviceAccountName"] == "dladiff-2"
    claims = [v["persistentVolumeClaim"] for v in head["volumes"] if "persistentVolumeClaim" in v]
    # Made once, before all runs, and read by each.
    assert [claim["claimName"] for claim in claims] == ["dladiff-weights"]


def test_every_object_that_a_pod_names_exists(folder: str) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in rendered(folder)}
    names |= {(one["kind"], one["metadata"]["name"]) for one in rendered("weights")}
    for pod in all_pods(folder):
        if account := pod["spec"].get("serviceAccountName"):
            assert ("ServiceAccount", account) in names
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in names
        mounted = {mount["name"] for c in pod["spec"]["containers"] for mount in mounts_in(c)}
        assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])}


def mounts_in(container: Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = container.get("volumeMounts", [])
    return found


def test_every_pod_meets_the_restricted_standard(folder: str) -> None:
    for pod in all_pods(folder):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    [namespace] = of_kind(folder, "Namespace")
    assert "restricted" in namespace["metadata"]["labels"].values()


def test_only_the_head_of_an_autoscaler_holds_a_token_of_the_cluster(spec: Manifest) -> None:
    head, *workers = ray_pods(spec)
    scales = spec["rayClusterSpec"].get("enableInTreeAutoscaling", False)
    assert head["spec"]["automountServiceAccountToken"] is scales
    for pod in [*workers, spec["submitterPodTemplate"]]:
        assert pod["spec"]["automountServiceAccountToken"] is False


def test_a_pod_that_has_to_go_uses_its_grace_period_for_what_is_in_flight(spec: Manifest) -> None:
    _, *workers = ray_pods(spec)
    for worker in workers:
        [container] = worker["spec"]["containers"]
        drain_s = float(variables(container)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 60 <= drain_s <= worker["spec"]["terminationGracePeriodSeconds"] - 15


def test_an_autoscaled_run_begins_without_a_gpu() -> None:
    folder = "overlays/autoscaled"
    [spec] = rayjob_specs(folder)
    cluster = spec["rayClusterSpec"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    [group] = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert group["maxReplicas"] > 1
    [policy] = [one["spec"] for one in of_kind(folder, "NetworkPolicy")]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert {443, 6443} <= ports  # the API server, whose own port a policy sees


def test_all_pods_run_one_image_of_this_version(folder: str) -> None:
    images = {c["image"] for pod in all_pods(folder) for c in pod["spec"]["containers"]}
    [image] = images
    assert image.rpartition(":")[2] == version("dladiff")


def test_policies_and_monitors_select_the_runs_pods(folder: str, spec: Manifest) -> None:
    labels = [pod["metadata"]["labels"].items() for pod in ray_pods(spec)]
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(folder, "NetworkPolicy")}
    selectors = [policies["dladiff"]["podSelector"]]
    selectors += [monitor["spec"]["selector"] for monitor in of_kind(folder, "PodMonitor")]
    for selector in selectors:
        assert all(selector["matchLabels"].items() <= found for found in labels)
    ports = {
        port["name"] for pod in ray_pods(spec) for port in pod["spec"]["containers"][0]["ports"]
    }
    for monitor in of_kind(folder, "PodMonitor"):
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports
    allowed = {
        port["port"] for rule in policies["dladiff"]["ingress"] for port in rule.get("ports", [])
    }
    assert {8080, 9464, 8265} <= allowed


# --- what keeps the head, and where a read-only pod writes ---


def test_what_writes_has_a_place_to_write(spec: Manifest) -> None:
    for pod in [*ray_pods(spec), spec["submitterPodTemplate"]]:
        container = pod["spec"]["containers"][0]
        places = {mount["mountPath"] for mount in mounts_in(container) if not mount.get("readOnly")}
        assert "/tmp" in places
        assert variables(container)["HOME"] == "/tmp"


def test_a_drain_and_an_autoscaler_leave_the_head_and_only_the_head(
    folder: str, spec: Manifest
) -> None:
    [budget] = of_kind(folder, "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] >= 100  # an integer: the only form without a scale
    chosen = budget["spec"]["selector"]["matchLabels"].items()
    head, *workers = ray_pods(spec)
    assert chosen <= head["metadata"]["labels"].items()
    assert not any(chosen <= worker["metadata"]["labels"].items() for worker in workers)
    notes = head["metadata"]["annotations"]
    assert notes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert notes["karpenter.sh/do-not-disrupt"] == "true"


def test_placed_pods_have_priorities_that_exist_and_name_servers_and_identities_are_reached() -> (
    None
):
    folder = "overlays/placed"
    [spec] = rayjob_specs(folder)
    values = {one["metadata"]["name"]: one["value"] for one in of_kind(folder, "PriorityClass")}
    head, worker = (values[pod["spec"]["priorityClassName"]] for pod in ray_pods(spec))
    assert worker < head < 0
    [policy] = [one["spec"] for one in of_kind(folder, "NetworkPolicy")]
    reached = {
        (to["ipBlock"]["cidr"].partition("/")[0], port["port"])
        for rule in policy["egress"]
        for to in rule.get("to", [])
        if "ipBlock" in to
        for port in rule["ports"]
    }
    assert reached >= {("169.254.20.10", 53), ("169.254.169.254", 80), ("169.254.170.23", 80)}
    assert {("169.254.169.252", 988), ("169.254.169.252", 987)} <= reached


# --- commands ---


def parsed(command: list[str]) -> dict[str, Any]:
    """Options and arguments as the real command line understands them."""
    assert command[0] == "dladiff"
    group: Any = get_command(app)
    found = group.commands[command[1]]
    parameters: dict[str, Any] = found.make_context(command[1], command[2:]).params
    return parameters


def test_the_command_line_understands_the_entrypoint(spec: Manifest) -> None:
    parameters = parsed(shlex.split(spec["entrypoint"]))
    assert parameters["batch"] is True
    assert parameters["config_file"] == "/etc/dladiff/protect.yaml"
    assert parameters["input_uri"].startswith("s3://")
    assert parameters["input_uri"] != parameters["output_uri"]


def test_the_entrypoint_passes_two_shells_unchanged(spec: Manifest) -> None:
    assert re.fullmatch(r"[\w ./:=-]+", spec["entrypoint"])


def test_the_cronjobs_pod_runs_a_command_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    [cron_job] = of_kind("overlays/scheduled", "CronJob")
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for one in container["env"]:
        monkeypatch.setenv(one["name"], "dladiff-29384756")
    parameters = parsed(container["command"])
    assert parameters["name"] == parameters["owner_uid"] == "dladiff-29384756"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(str(parameters["manifest"])).parent) in mounts


def test_the_cronjobs_role_allows_what_the_command_does_and_no_more() -> None:
    [role] = of_kind("overlays/scheduled", "Role")
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    ]


def test_the_file_in_the_configmap_is_one_that_k8s_run_takes(tmp_path: Path) -> None:
    [text] = [
        one["data"]["rayjob.yaml"]
        for one in of_kind("overlays/scheduled", "ConfigMap")
        if "rayjob.yaml" in one["data"]
    ]
    (tmp_path / "rayjob.yaml").write_text(text)
    made = named_rayjob(read_rayjob(tmp_path / "rayjob.yaml"), "dladiff-29384756", "dladiff")
    head = ray_pods(made["spec"])[0]["spec"]["containers"][0]
    assert variables(head)["DLADIFF_RUN_ID"] == "dladiff-29384756"


# --- the exporter ---


@pytest.mark.parametrize("folder", EXPORTER)
def test_the_exporter_runs_a_command_that_exists_where_prometheus_reaches_it(folder: str) -> None:
    [deployment] = of_kind(folder, "Deployment")
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    parameters = parsed(container["command"])
    assert parameters["output_uris"]
    [port] = container["ports"]
    assert port["containerPort"] == parameters["port"]
    [monitor], [policy] = of_kind(folder, "PodMonitor"), of_kind(folder, "NetworkPolicy")
    labels = pod["metadata"]["labels"].items()
    for selector in (monitor["spec"]["selector"], policy["spec"]["podSelector"]):
        assert selector["matchLabels"].items() <= labels
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]
    [rule] = policy["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [port["containerPort"]]
    [account] = of_kind(folder, "ServiceAccount")
    assert pod["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["image"].rpartition(":")[2] == version("dladiff")


def test_the_exporter_watches_the_output_of_the_runs_beside_it() -> None:
    [spec] = rayjob_specs("overlays/bucket-to-bucket")
    [deployment] = of_kind("overlays/bucket-to-bucket/exporter", "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    run = parsed(shlex.split(spec["entrypoint"]))
    assert parsed(container["command"])["output_uris"] == [run["output_uri"]]


# --- variants ---


def test_a_queued_run_names_a_queue_whose_quota_it_fits() -> None:
    folder = "overlays/kueue"
    [rayjob], [local], [cluster] = (
        of_kind(folder, kind) for kind in ("RayJob", "LocalQueue", "ClusterQueue")
    )
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    assert local["metadata"]["namespace"] == rayjob["metadata"]["namespace"]
    flavors = {one["metadata"]["name"] for one in of_kind(folder, "ResourceFlavor")}
    [group] = cluster["spec"]["resourceGroups"]
    quota = {r["name"]: r["nominalQuota"] for f in group["flavors"] for r in f["resources"]}
    assert {flavor["name"] for flavor in group["flavors"]} <= flavors
    assert set(quota) == set(group["coveredResources"])
    spec = rayjob["spec"]["rayClusterSpec"]
    groups = [(1, spec["headGroupSpec"])]
    groups += [(one["maxReplicas"], one) for one in spec["workerGroupSpecs"]]
    wanted = {"cpu": 0.0, "memory": 0.0, "nvidia.com/gpu": 0.0}
    for replicas, one in groups:
        for name, amount in one["template"]["spec"]["containers"][0]["resources"][
            "requests"
        ].items():
            value = num_bytes(amount) if name == "memory" else float(amount)
            wanted[name] += replicas * value
    assert wanted["cpu"] + 1 <= quota["cpu"]  # and the submitter
    assert wanted["memory"] + 2**30 <= num_bytes(quota["memory"])
    assert wanted["nvidia.com/gpu"] <= quota["nvidia.com/gpu"]


def test_kuberays_own_schedule_has_the_same_run_without_its_template() -> None:
    [cron_job] = of_kind("overlays/ray-cron-job", "RayCronJob")
    assert of_kind("overlays/ray-cron-job", "RayJob") == []
    [rayjob] = of_kind("overlays/bucket-to-bucket", "RayJob")
    template = cron_job["spec"]["jobTemplate"]
    assert template["entrypoint"] == rayjob["spec"]["entrypoint"]
    head = ray_pods(template)[0]["spec"]["containers"][0]
    assert "DLADIFF_RUN_ID" not in variables(head)


def test_spilled_photos_lie_on_an_encrypted_volume_that_dies_with_its_pod() -> None:
    [spec] = rayjob_specs("overlays/bucket-to-bucket")
    for pod in ray_pods(spec):
        [name] = [m["name"] for m in mounts_of(pod) if m["mountPath"] == "/tmp/ray"]
        [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == name]
        claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert claim["storageClassName"] == "encrypted"


def test_tls_between_pods_is_one_overlay() -> None:
    [spec] = rayjob_specs("overlays/tls")
    assert spec["rayClusterSpec"]["tlsOptions"] == {"enabled": True}
    [without] = rayjob_specs("overlays/bucket-to-bucket")
    assert "tlsOptions" not in without["rayClusterSpec"]


def test_the_alerts_of_the_cluster_are_those_of_the_rule_file() -> None:
    [rule] = of_kind("overlays/bucket-to-bucket", "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
