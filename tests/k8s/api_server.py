"""An API server for ``kubectl``: it keeps objects in memory and refuses what a real one would.

Discovery, create, read, apply (client side and server side), dry runs and watching, over HTTPS. It
checks what needs no controller: the namespace exists, the kind is known, the schema fits (that of
Kubernetes, or KubeRay's CRD with its CEL rules), and a Job's template does not change. A patch
merges mappings and replaces lists; who owns a field is not kept. ``finish_jobs`` runs Jobs.
"""

import contextlib
import copy
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from tests.k8s.custom_resources import refusals
from tests.k8s.manifests import Manifest
from tests.k8s.operator_rules import operator_refusals
from tests.pipeline.kubernetes.cluster_api import make_certificate

KUBERNETES = "1.34"
KINDS = {
    "v1": ["Namespace", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"],
    "apps/v1": ["Deployment"],
    "batch/v1": ["Job", "CronJob"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
    "scheduling.k8s.io/v1": ["PriorityClass"],
    "ray.io/v1": ["RayJob", "RayCronJob"],
    "monitoring.coreos.com/v1": ["PodMonitor", "PrometheusRule"],
    "kueue.x-k8s.io/v1beta2": ["ResourceFlavor", "ClusterQueue", "LocalQueue"],
}
CLUSTER_WIDE = {"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue"}
UNCHECKED = {"PodMonitor", "PrometheusRule", "ResourceFlavor", "ClusterQueue", "LocalQueue"}
"""Kinds whose schema is not at hand."""


class RefusedError(Exception):
    """An answer that is no object: HTTP status, reason and message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "reason": reason,
            "message": message,
            "code": code,
        }


def plural(kind: str) -> str:
    return (
        f"{kind.lower()[:-1]}ies"
        if kind.endswith("y")
        else f"{kind.lower()}{'es' if kind.endswith('s') else 's'}"
    )


@dataclass
class ApiServer:
    """Objects by kind, namespace and name, and every write in its order."""

    kubeconfig: Path
    objects: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of what was created or changed; dry runs are not."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    uid: int = 0

    def get(self, kind: str, namespace: str, name: str) -> Manifest:
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise RefusedError(404, "NotFound", f"{plural(kind)} {name!r} not found") from None

    def list(self, kind: str, namespace: str, name: str | None) -> Manifest:
        found = [
            one
            for (of_kind, place, of_name), one in self.objects.items()
            if of_kind == kind and place == namespace and name in (None, of_name)
        ]
        version = found[0]["apiVersion"] if found else "v1"
        return {
            "kind": f"{kind}List",
            "apiVersion": version,
            "metadata": {"resourceVersion": "1"},
            "items": found,
        }

    def put(self, namespace: str, new: Manifest, dry_run: bool) -> Manifest:
        """Creates or replaces an object, unless it is refused."""
        kind, name = new["kind"], new["metadata"]["name"]
        with self.lock:
            if kind not in CLUSTER_WIDE and ("Namespace", "", namespace) not in self.objects:
                raise RefusedError(404, "NotFound", f"namespaces {namespace!r} not found")
            old = self.objects.get((kind, namespace, name))
            self._check(new, old)
            stored = copy.deepcopy(new)
            self.uid += 1
            stored["metadata"] |= {"uid": f"uid-{self.uid}", "resourceVersion": str(self.uid)}
            if kind not in CLUSTER_WIDE:
                stored["metadata"]["namespace"] = namespace
            if not dry_run:
                self.objects[kind, namespace, name] = stored
                self.writes.append((kind, name))
            return stored

    def _check(self, new: Manifest, old: Manifest | None) -> None:
        kind = new["kind"]
        bare = copy.deepcopy(new)
        for own in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
            bare["metadata"].pop(own, None)
        if new["apiVersion"] == "ray.io/v1":
            found = refusals(bare, old) or operator_refusals(bare)
        elif kind in UNCHECKED:
            found = []
        else:
            found = _schema_refusals(bare)
        if kind == "Job" and old is not None and old["spec"]["template"] != new["spec"]["template"]:
            found = ["spec.template: field is immutable"]
        if found:
            raise RefusedError(
                422, "Invalid", f"{kind} {new['metadata']['name']!r} is invalid: {'; '.join(found)}"
            )

    def finish_jobs(self) -> None:
        """Every Job is complete, as if its pod had run."""
        with self.lock:
            for (kind, *_), one in self.objects.items():
                if kind == "Job":
                    one["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}


def _schema_refusals(manifest: Manifest) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def discovery(path: str) -> Manifest | None:
    """Answers of the discovery API; None: the path is none of it."""
    if path in ("/version", "/version/"):
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        names = [version for version in KINDS if "/" in version]
        groups = [
            {
                "name": name.split("/")[0],
                "versions": [{"groupVersion": name, "version": name.split("/")[1]}],
                "preferredVersion": {"groupVersion": name, "version": name.split("/")[1]},
            }
            for name in names
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path.startswith("/openapi/v3"):
        return openapi(path)
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in KINDS:
        resources = [
            {
                "name": plural(kind),
                "singularName": kind.lower(),
                "namespaced": kind not in CLUSTER_WIDE,
                "kind": kind,
                "verbs": ["create", "get", "list", "patch", "watch"],
            }
            for kind in KINDS[version]
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return None


def openapi(path: str) -> Manifest:
    """No more than kubectl asks for: that the server validates fields and knows dry runs."""
    if path == "/openapi/v3":
        names = [f"apis/{name}" if "/" in name else f"api/{name}" for name in KINDS]
        return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
    version = path.removeprefix("/openapi/v3/").removeprefix("apis/").removeprefix("api/")
    group, _, name = version.rpartition("/")
    known = [{"name": one, "in": "query"} for one in ("dryRun", "fieldValidation")]
    paths = {
        f"/{plural(kind)}": {
            "patch": {
                "parameters": known,
                "x-kubernetes-group-version-kind": {"group": group, "version": name, "kind": kind},
            }
        }
        for kind in KINDS.get(version, [])
    }
    return {"openapi": "3.0.0", "info": {"title": "kinds", "version": "1"}, "paths": paths}


def merged(old: Any, patch: Any) -> Any:
    """``old`` after a merge patch: mappings are merged, null deletes, all else is replaced."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    result = old | {name: merged(old.get(name), one) for name, one in patch.items()}
    return {name: one for name, one in result.items() if one is not None and name[0] != "$"}


def place(path: str) -> tuple[str, str, str | None]:
    """Kind, namespace and name of a path of objects.

    Raises:
        RefusedError: If there is no such kind.
    """
    parts = path.strip("/").split("/")
    version, rest = (
        (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    )
    namespace = ""
    if not rest:
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kinds = [kind for kind in KINDS.get(version, []) if plural(kind) == rest[0]]
    if not kinds:
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")
    return kinds[0], namespace, rest[1] if len(rest) > 1 else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._write)

    def do_PATCH(self) -> None:
        self._answer(self._write)

    @property
    def _api(self) -> ApiServer:
        api: ApiServer = self.server.api  # type: ignore[attr-defined]
        return api

    def _read(self, path: str, query: dict[str, list[str]], body: bytes) -> Manifest:
        found = discovery(path)
        if found is not None:
            return found
        kind, namespace, name = place(path)
        if name is not None:
            return self._api.get(kind, namespace, name)
        chosen = query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
        return self._api.list(kind, namespace, chosen or None)

    def _write(self, path: str, query: dict[str, list[str]], body: bytes) -> Manifest:
        kind, namespace, name = place(path)
        sent = yaml.safe_load(body)  # JSON is YAML; a server-side apply sends YAML
        if self.command == "PATCH" and "apply-patch" not in self.headers["Content-Type"]:
            sent = merged(self._api.get(kind, namespace, str(name)), sent)
        return self._api.put(namespace, sent, query.get("dryRun") == ["All"])

    def _answer(self, act: Any) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if query.get("watch") == ["true"]:
            return self._watch(parts.path, query)
        try:
            code, found = (201 if self.command == "POST" else 200), act(parts.path, query, body)
        except RefusedError as refused:
            code, found = refused.code, refused.body
        self._send(code, json.dumps(found).encode())

    def _watch(self, path: str, query: dict[str, list[str]]) -> None:
        """Finishes all Jobs, and tells of the one that is watched."""
        self._api.finish_jobs()
        listed = self._read(path, query, b"")
        lines = [json.dumps({"type": "MODIFIED", "object": one}) + "\n" for one in listed["items"]]
        self._send(200, "".join(lines).encode())

    def _send(self, code: int, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # kubectl hangs up in the end
            super().handle_error(request, client_address)


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Serves the API on this machine; its ``kubeconfig`` lies in ``folder``."""
    make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    kubeconfig = folder / "kubeconfig"
    api = ApiServer(kubeconfig)
    server.api = api  # type: ignore[attr-defined]
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server.server_port, folder / "ca.crt")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        with contextlib.suppress(OSError):
            server.server_close()


def _kubeconfig(port: int, certificate: Path) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {
                "name": "here",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority": str(certificate),
                },
            }
        ],
        "users": [{"name": "me", "user": {"token": "of-a-person"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
