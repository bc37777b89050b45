"""An HTTP proxy before a real S3 server that answers, drops or refuses as a drill decides."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Answer = Literal["pass", "throttle", "expire", "deny", "drop"]

_ERRORS = {
    "throttle": (503, "SlowDown", "Please reduce your request rate."),
    "expire": (400, "ExpiredToken", "The provided token has expired."),
    "deny": (403, "AccessDenied", "Access Denied"),
}
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "expect"}


class Gateway:
    """Forwards every request for which ``decide`` says so."""

    def __init__(self, port: int) -> None:
        self.port = port
        """Of the server behind."""
        self.decide: Callable[[int], Answer] = lambda number: "pass"
        """What becomes of the n-th request, counted from 1."""
        self.num_requests = 0
        self._lock = threading.Lock()

    def next(self) -> Answer:
        with self._lock:
            self.num_requests += 1
            return self.decide(self.num_requests)


@contextmanager
def gateway_to(port: int) -> Iterator[tuple[Gateway, str]]:
    """A gateway to a server's port on this machine, and its URL."""
    gateway = Gateway(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client was faster, or the server behind is gone
                self.close_connection = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = gateway.next()
            if answer == "drop":
                self.close_connection = True
            elif answer == "pass":
                self._forward(body)
            else:
                status, code, message = _ERRORS[answer]
                text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
                self._reply(status, [("Content-Type", "application/xml")], text.encode())

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - http.server's names

        def _forward(self, body: bytes) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                headers = [
                    (name, text)
                    for name, text in reply.getheaders()
                    if name.lower() not in _HOP_BY_HOP
                ]
                size = reply.getheader("Content-Length") if self.command == "HEAD" else None
                self._reply(reply.status, headers, reply.read(), size)
            finally:
                connection.close()

        def _reply(
            self, status: int, headers: list[tuple[str, str]], body: bytes, size: str | None = None
        ) -> None:
            self.send_response_only(status)
            for name, text in headers:
                self.send_header(name, text)
            self.send_header("Content-Length", size or str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield gateway, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
