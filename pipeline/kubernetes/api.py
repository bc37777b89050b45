"""The few calls to a cluster's API that running a RayJob needs: create one, read one or another.

Plain HTTPS with ``requests``, which Ray brings along. The official client is a hundred times the
code, has no type for a RayJob, and would be one more thing to keep in step with the cluster.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from pipeline.errors import ClusterUnreachable, ConfigurationError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the token, the CA and the namespace of a pod's service account."""

_TIMEOUT_S = (10, 30)
"""For connecting, and between two bytes of an answer."""
_TRANSIENT = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class ClusterAccess:
    """Where the API is and how to be let in."""

    server: str
    """E.g. ``https://10.0.0.1:443``."""
    token_file: Path
    """Read at every call, since Kubernetes replaces the token about once an hour."""
    ca_file: Path
    namespace: str
    """Of the pod itself."""


def access_in_cluster() -> ClusterAccess:
    """The access that a pod's service account gives.

    Raises:
        ConfigurationError: If this is no pod, or its service account's token is not mounted.
    """
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if not host or not port:
        raise ConfigurationError(
            "no KUBERNETES_SERVICE_HOST in the environment: this command runs in a pod"
        )
    folder = SERVICE_ACCOUNT
    missing = [name for name in ("token", "ca.crt", "namespace") if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"no {', '.join(missing)} in {folder}: the pod needs a serviceAccountName and "
            "automountServiceAccountToken: true"
        )
    host = f"[{host}]" if ":" in host else host
    return ClusterAccess(
        server=f"https://{host}:{port}",
        token_file=folder / "token",
        ca_file=folder / "ca.crt",
        namespace=(folder / "namespace").read_text().strip(),
    )


class RayJobApi:
    """Creates and reads RayJobs.

    A call is tried again on lost connections, throttling and server errors, with growing pauses:
    about four minutes in all. Creating again is harmless, since a name exists once.
    """

    def __init__(self, access: ClusterAccess, retries: int = 8, backoff_s: float = 1.0) -> None:
        self.access = access
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between a pod and its API
        self._session.verify = str(access.ca_file)
        self._session.auth = _TokenFile(access.token_file)
        retry = Retry(
            total=retries,
            backoff_factor=backoff_s,
            backoff_max=60,
            status_forcelist=_TRANSIENT,
            allowed_methods=None,
            raise_on_status=False,
        )
        self._session.mount("https://", HTTPAdapter(max_retries=retry))

    def create(self, namespace: str, rayjob: dict[str, Any]) -> bool:
        """Creates a RayJob.

        Returns:
            False if one of that name exists already.

        Raises:
            ConfigurationError: If the cluster refuses it, with the remedy.
            ClusterUnreachable: If the API still does not answer after all retries.
        """
        answer = self._call("POST", namespace, "", rayjob)
        if answer.status_code == 409:
            return False
        if not answer.ok:
            raise _refusal(answer, "create", namespace)
        return True

    def read(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The RayJob as the cluster has it, None if there is none.

        Raises:
            As ``create``.
        """
        answer = self._call("GET", namespace, f"/{name}")
        if answer.status_code == 404 and _is_status(answer):
            return None
        if not answer.ok:
            raise _refusal(answer, "get", namespace)
        return cast(dict[str, Any], answer.json())

    def read_path(self, path: str, namespace: str) -> dict[str, Any] | None:
        """An object of any kind by its path in the API, None if there is none.

        Args:
            path: E.g. ``/apis/batch/v1/namespaces/dladiff/jobs/dladiff-weights``.
            namespace: The object's, for the message of a refusal.

        Raises:
            As ``create``.
        """
        answer = self._request("GET", path)
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise _refusal(answer, "get", namespace)
        return cast(dict[str, Any], answer.json())

    def _call(
        self, method: str, namespace: str, below: str, body: dict[str, Any] | None = None
    ) -> requests.Response:
        return self._request(method, f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs{below}", body)

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> requests.Response:
        url = self.access.server + path
        try:
            answer = self._session.request(method, url, json=body, timeout=_TIMEOUT_S)
        except requests.exceptions.SSLError as error:
            raise ConfigurationError(
                f"{self.access.server} is not signed by {self.access.ca_file}: {error}"
            ) from None
        except requests.exceptions.RequestException as error:
            raise ClusterUnreachable(
                f"{self.access.server} does not answer ({type(error).__name__}): check the "
                "network policy of this pod"
            ) from None
        if answer.status_code in _TRANSIENT:
            raise ClusterUnreachable(
                f"{self.access.server} keeps answering {answer.status_code}: {_message(answer)}"
            )
        return answer


class _TokenFile(AuthBase):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._path.read_text().strip()}"
        return request


def _refusal(answer: requests.Response, verb: str, namespace: str) -> ConfigurationError:
    """What to do about an answer that no retry changes."""
    message = _message(answer)
    if answer.status_code == 401:
        return ConfigurationError(f"the API refuses this pod's token: {message}")
    if answer.status_code == 403:
        return ConfigurationError(
            f"{message}\nThe service account needs a Role in namespace {namespace} with the rule "
            f'{{apiGroups: ["ray.io"], resources: ["rayjobs"], verbs: ["{verb}"]}}, and to get '
            "jobs and persistentvolumeclaims, as in k8s/overlays/scheduled/rbac.yaml"
        )
    if answer.status_code == 404 and not _is_status(answer):
        return ConfigurationError(
            "the cluster knows no RayJob: install the KubeRay operator with its CRDs"
        )
    return ConfigurationError(f"the API answers {answer.status_code}: {message}")


def _is_status(answer: requests.Response) -> bool:
    """Whether the API itself answers about an object; an unknown kind gets a bare page."""
    return "json" in answer.headers.get("Content-Type", "")


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:200] or answer.reason
