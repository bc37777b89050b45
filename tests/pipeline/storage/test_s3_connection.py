"""What a connection to S3 makes of silence, halves and encryption: a raw socket, a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET, create_server, socket
from struct import pack
from typing import Any

import pytest

from pipeline.errors import ConfigurationError, StoreUnreachable
from pipeline.storage import s3
from pipeline.storage.store import Store
from pipeline.storage.uris import split_uri

PHOTO = b"<photo/>"
"""What every answer holds; XML, since some answers must be."""
WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\nETag: "1"\r\n\r\n' + PHOTO


@pytest.fixture(autouse=True)
def connections_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3._process_connection.cache_clear()
    yield
    s3._process_connection.cache_clear()


def succeed(client: socket) -> None:
    client.sendall(WHOLE)


def say_nothing(_: socket) -> None:
    pass


def stall_half_way(client: socket) -> None:
    client.sendall(WHOLE[:-3])


def break_off(client: socket) -> None:
    client.sendall(WHOLE[:-3])
    client.close()


def reset(client: socket) -> None:
    client.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    client.close()


@contextmanager
def endpoint(
    monkeypatch: pytest.MonkeyPatch, *answers: Callable[[socket], None]
) -> Iterator[list[bytes]]:
    """Answers each connection in turn, then with whole photos; yields the requests so far."""
    requests: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            requests.append(stack.enter_context(client).recv(65536))
            answer = answers[len(requests) - 1] if len(requests) <= len(answers) else succeed
            answer(client)

    with create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        yield requests
        server.shutdown(SHUT_RDWR)  # wakes the thread that waits for a connection


@pytest.mark.parametrize("trouble", [say_nothing, break_off, stall_half_way, reset])
def test_a_read_that_does_not_come_whole_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, trouble: Callable[[socket], None]
) -> None:
    with endpoint(monkeypatch, trouble, trouble) as requests:
        assert Store("s3://bucket/x", retry_delays_s=(0, 0)).read("1.jpg") == PHOTO
        assert len(requests) == 3


@pytest.mark.parametrize("trouble", [say_nothing, break_off, stall_half_way, reset])
def test_an_endpoint_that_never_answers_whole_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, trouble: Callable[[socket], None]
) -> None:
    with endpoint(monkeypatch, *[trouble] * 9) as requests:
        began = time.monotonic()
        with pytest.raises(StoreUnreachable):
            Store("s3://bucket/x", retry_delays_s=(0,)).read("1.jpg")
        assert 2 <= len(requests) <= 4  # aiohttp itself repeats what was reset
        assert time.monotonic() - began < 5


def test_every_object_is_encrypted_as_asked_copies_included(
    s3_prefix: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 60.0)
    store = Store(s3_prefix)
    store.write("plain", b"before")
    monkeypatch.setenv("DLADIFF_S3_ENCRYPTION", "AES256")
    store.write("staged", b"photo")
    assert store.create_exclusive("commit", b"record")
    store.copy_published("staged", "copy", store.sha256_of("staged"))
    store.copy_published("plain", "copy-of-plain", store.sha256_of("plain"))
    assert store.read("copy-of-plain") == b"before"
    _, bucket, prefix = split_uri(s3_prefix)
    encryption = {
        info.key: s3_client.head_object(Bucket=bucket, Key=f"{prefix}/{info.key}").get(
            "ServerSideEncryption"
        )
        for info in store.list()
    }
    made = dict.fromkeys(("staged", "commit", "copy", "copy-of-plain"), "AES256")
    assert encryption == {"plain": None, **made}


def test_a_key_of_kms_goes_with_every_put_and_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests themselves: no server here has a KMS."""
    monkeypatch.setenv("DLADIFF_S3_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("DLADIFF_S3_KMS_KEY_ID", "arn:key")
    with endpoint(monkeypatch) as requests:
        store = Store("s3://bucket/x", retry_delays_s=())
        store.write("a", b"photo")
        store._backend.copy("a", "b", {})
    assert len(requests) == 2
    for request in requests:
        assert b"x-amz-server-side-encryption: aws:kms" in request
        assert b"x-amz-server-side-encryption-aws-kms-key-id: arn:key" in request


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DLADIFF_S3_ENCRYPTION": "aes"}, "expected one of AES256, aws:kms"),
        ({"DLADIFF_S3_KMS_KEY_ID": "key"}, "DLADIFF_S3_ENCRYPTION=aws:kms"),
    ],
)
def test_an_encryption_that_would_not_happen_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], told: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=told):
        Store("s3://bucket/x").write("1.jpg", b"photo")
