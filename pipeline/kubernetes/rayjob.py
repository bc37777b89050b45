"""A RayJob as a manifest and as the cluster reports it. Knows no network.

States and reasons are those of KubeRay 1.7.
"""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigurationError
from pipeline.options import EXIT_DONE, EXIT_ERROR, EXIT_FAILURES, EXIT_UNFINISHED

MAX_NAME_LENGTH = 47
"""KubeRay refuses longer names: it appends to them, and 63 characters are the cluster's limit."""

_RUN_ID_VARIABLE = "DLADIFF_RUN_ID"
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")
"""How Ray words the end of a job's entrypoint; KubeRay copies it into the status."""


@dataclass(frozen=True)
class Owner:
    """The Kubernetes Job whose pod created the RayJob; its deletion deletes the RayJob too."""

    name: str
    uid: str


@dataclass(frozen=True)
class RayJobState:
    """How far a RayJob is."""

    deployment: str = "New"
    """``status.jobDeploymentStatus``: Initializing, Running, Retrying, Complete, Failed, ..."""
    job: str = ""
    """``status.jobStatus``: of the entrypoint, PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED."""
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, rayjob: dict[str, Any]) -> "RayJobState":
        """Reads the status that the operator wrote; none yet: ``New``."""
        status = rayjob.get("status") or {}
        return cls(
            deployment=status.get("jobDeploymentStatus") or "New",
            job=status.get("jobStatus") or "",
            reason=status.get("reason") or "",
            message=status.get("message") or "",
        )

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen; a RayJob that retries has not ended."""
        return self.deployment in ("Complete", "Failed", "ValidationFailed")

    @property
    def exit_code(self) -> int:
        """The outcome as an exit code of ours; only of one that ``ended``.

        The entrypoint's own code where the operator passes it on. Else 3, since a deadline or
        lost machines leave photos that the same command goes on with.
        """
        if self.job == "SUCCEEDED":
            return EXIT_DONE
        if self.deployment == "ValidationFailed":
            return EXIT_ERROR
        found = _EXIT_CODE.search(self.message)
        code = int(found[1]) if found else EXIT_UNFINISHED
        return code if code in (EXIT_ERROR, EXIT_FAILURES) else EXIT_UNFINISHED

    def describe(self) -> str:
        """For a log; without the entrypoint's output, which the message may carry along."""
        parts = [self.deployment, self.job, self.reason]
        if found := _EXIT_CODE.search(self.message):
            parts.append(f"exit code {found[1]}")
        elif self.ended and self.job != "SUCCEEDED":
            parts.append(self.message.partition("\n")[0][:300])
        return ", ".join(part for part in parts if part)


def read_rayjob(path: Path) -> dict[str, Any]:
    """The one RayJob in a YAML file; other kinds in it are left alone.

    Raises:
        ConfigurationError: If the file cannot be read or has none, or several.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    found = [one for one in documents if isinstance(one, dict) and one.get("kind") == "RayJob"]
    if len(found) != 1:
        raise ConfigurationError(f"{path}: expected one RayJob, found {len(found)}")
    if found[0].get("apiVersion") != "ray.io/v1":
        raise ConfigurationError(
            f"{path}: expected apiVersion ray.io/v1, found {found[0].get('apiVersion')!r}"
        )
    return found[0]


def named_rayjob(
    template: dict[str, Any], name: str, namespace: str, owner: Owner | None = None
) -> dict[str, Any]:
    """A copy of a RayJob under another name, whose retries continue one run of that name.

    Args:
        template: RayJob manifest; its own name does not matter.
        name: Of the RayJob and of the run.
        namespace: Where it goes.
        owner: Job that it dies with; None: it outlives its creator.

    Raises:
        ConfigurationError: If KubeRay would refuse the name, or the manifest has no head.
    """
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} can't name a RayJob: expected at most {MAX_NAME_LENGTH} of [a-z0-9-], "
            "beginning with a letter. A CronJob's own name must not exceed 37 characters."
        )
    rayjob = copy.deepcopy(template)
    rayjob.pop("status", None)
    metadata = rayjob.setdefault("metadata", {})
    metadata |= {"name": name, "namespace": namespace}
    if owner is not None:
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid}
        metadata["ownerReferences"] = [reference]
    try:
        head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        container = head["containers"][0]
    except (KeyError, IndexError, TypeError):
        raise ConfigurationError("the RayJob has no container for the Ray head") from None
    kept = [one for one in container.get("env") or [] if one.get("name") != _RUN_ID_VARIABLE]
    container["env"] = [*kept, {"name": _RUN_ID_VARIABLE, "value": name}]
    return rayjob


def belongs_to(rayjob: dict[str, Any], owner: Owner) -> bool:
    """Whether a RayJob in the cluster was created by a pod of this Job."""
    references = rayjob.get("metadata", {}).get("ownerReferences") or []
    return any(reference.get("uid") == owner.uid for reference in references)
