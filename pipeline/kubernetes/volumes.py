"""Are the volumes that a RayJob reads there and filled, before it asks for a single GPU?"""

import logging
import time
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.kubernetes.api import RayJobApi

logger = logging.getLogger("dladiff.kubernetes")


def claims_of(rayjob: dict[str, Any]) -> list[str]:
    """Names of the volume claims that pods of a RayJob mount, sorted."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *(cluster.get("workerGroupSpecs") or [])]
    volumes = [
        volume for group in groups for volume in group["template"]["spec"].get("volumes") or []
    ]
    claims = [volume.get("persistentVolumeClaim") for volume in volumes]
    return sorted({claim["claimName"] for claim in claims if claim})


def wait_for_volumes(
    api: RayJobApi, rayjob: dict[str, Any], poll_s: float = 15.0, patience_s: float = 7200.0
) -> None:
    """Waits until each volume is filled by the Job of its claim's name, where there is one.

    A claim without such a Job was filled by other means.

    Args:
        rayjob: With namespace.
        poll_s: Seconds between two looks.
        patience_s: Seconds after which a Job that still works is a reason to refuse.

    Raises:
        ConfigurationError: A claim is missing, or its Job failed or takes too long.
        ClusterUnreachable: The API is gone for minutes.
    """
    namespace = rayjob["metadata"]["namespace"]
    for claim in claims_of(rayjob):
        where = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
        if api.read_path(where, namespace) is None:
            raise ConfigurationError(
                f"the volume claim {claim} that the RayJob mounts does not exist in namespace "
                f"{namespace}: apply the weights first (kubectl apply -k .../weights, see "
                "docs/operations.md)"
            )
        _wait_for_job(api, namespace, claim, poll_s, patience_s)


def _wait_for_job(
    api: RayJobApi, namespace: str, name: str, poll_s: float, patience_s: float
) -> None:
    deadline, said = time.monotonic() + patience_s, False
    logs = f"kubectl -n {namespace} logs job/{name}"
    while True:
        job = api.read_path(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", namespace)
        state = "Complete" if job is None else _condition(job)
        if state == "Complete":
            return
        if state == "Failed":
            raise ConfigurationError(
                f"Job {name}, which fills the volume {name}, failed: see {logs}, then delete the "
                "Job and apply it again"
            )
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"Job {name}, which fills the volume {name}, is not complete after "
                f"{patience_s:.0f} s: see {logs}"
            )
        if not said:
            logger.info("waiting for Job %s, which fills the volume of that name", name)
            said = True
        time.sleep(poll_s)


def _condition(job: dict[str, Any]) -> str:
    """``Complete``, ``Failed``, or nothing while it works."""
    conditions = (job.get("status") or {}).get("conditions") or []
    found = [one["type"] for one in conditions if one.get("status") == "True"]
    return next((name for name in ("Complete", "Failed") if name in found), "")
