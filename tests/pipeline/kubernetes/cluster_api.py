"""A small HTTPS server that answers like the API of a Kubernetes cluster, from a script."""

import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.kubernetes.api import ClusterAccess

NAMESPACE = "photos"
TOKEN = "token-of-the-pod"
RESET = "reset"
"""In a script: the connection is lost instead of an answer."""

Answer = tuple[int, dict[str, Any] | str] | str


@dataclass
class ClusterApi:
    """Scripts by method, and what was asked; the last answer of a script is repeated."""

    access: ClusterAccess
    posts: deque[Answer] = field(default_factory=deque)
    gets: deque[Answer] = field(default_factory=deque)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorization of every request."""
    created: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the POST requests."""


@contextmanager
def cluster_api(folder: Path) -> Iterator[ClusterApi]:
    """Serves a cluster's API; ``folder`` becomes the pod's mounted service account."""
    make_certificate(folder)
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "namespace").write_text(NAMESPACE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_port}"
    api = ClusterApi(ClusterAccess(url, folder / "token", folder / "ca.crt", NAMESPACE))
    server.api = api  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer("GET", self.server.api.gets)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.api.created.append(json.loads(body))  # type: ignore[attr-defined]
        self._answer("POST", self.server.api.posts)  # type: ignore[attr-defined]

    def _answer(self, method: str, script: deque[Answer]) -> None:
        asked = method, self.path, self.headers.get("Authorization", "")
        self.server.api.asked.append(asked)  # type: ignore[attr-defined]
        answer = script.popleft() if len(script) > 1 else script[0]
        if isinstance(answer, str):
            linger = struct.pack("ii", 1, 0)  # closing sends RST instead of a proper end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        status, body = answer
        is_json = isinstance(body, dict)
        content = json.dumps(body) if is_json else str(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_certificate(folder: Path) -> None:
    """Writes ``ca.crt`` and ``key.pem`` of a server at 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(pem)


def failure(code: int, reason: str, message: str) -> Answer:
    """A ``Status`` object as the API sends it when it refuses."""
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
