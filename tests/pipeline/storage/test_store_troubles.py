"""Vendors' errors become ours, and only what may pass is tried again."""

import errno
import socket
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3fs.errors import translate_boto_error

from pipeline.errors import (
    BucketMissing,
    ConfigurationError,
    DiskFull,
    StoreDenied,
    StoreThrottled,
    StoreUnreachable,
)
from pipeline.storage.store import NotSupported, ObjectTooLarge, Store
from pipeline.storage.troubles import classify, retrying


def answer(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "told"}}, "PutObject")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchKey", FileNotFoundError),
        ("404", FileNotFoundError),
        ("NoSuchBucket", BucketMissing),
        ("PreconditionFailed", FileExistsError),
        ("412", FileExistsError),
        ("SlowDown", StoreThrottled),
        ("503", StoreThrottled),
        ("ConditionalRequestConflict", StoreThrottled),
        ("AccessDenied", StoreDenied),
        ("403", StoreDenied),
        ("ExpiredToken", StoreDenied),
        ("ExpiredTokenException", StoreDenied),
        ("KMS.DisabledException", StoreDenied),
        ("KMS.ThrottlingException", StoreThrottled),
        ("SlowDownWrite", StoreThrottled),
        ("InvalidAccessKeyId", StoreDenied),
        ("InternalError", StoreUnreachable),
        ("500", StoreUnreachable),
        ("502", StoreUnreachable),
        ("XMinioStorageFull", DiskFull),
        ("507", DiskFull),
        ("NotImplemented", NotSupported),
        ("InvalidBucketName", ConfigurationError),
    ],
)
def test_a_bucket_s_answer_is_classified_raw_and_as_s3fs_raises_it(
    code: str, kind: type[Exception]
) -> None:
    assert type(classify(answer(code), "writing")) is kind
    assert type(classify(translate_boto_error(answer(code)), "writing")) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, StoreThrottled),
        (503, StoreThrottled),
        (401, StoreDenied),
        (403, StoreDenied),
        (500, StoreUnreachable),
        (507, StoreUnreachable),
    ],
)
def test_a_word_that_nobody_knows_is_classified_by_its_status(
    status: int, kind: type[Exception]
) -> None:
    response = {
        "Error": {"Code": "XVendorWord", "Message": "told"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = ClientError(response, "PutObject")
    assert type(classify(error, "writing")) is kind
    assert type(classify(translate_boto_error(error), "writing")) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EndpointConnectionError(endpoint_url="http://host"), StoreUnreachable),
        (ReadTimeoutError(endpoint_url="http://host"), StoreUnreachable),
        (NoCredentialsError(), StoreDenied),
        (ConnectionResetError(), StoreUnreachable),
        (TimeoutError(), StoreUnreachable),
        (OSError(errno.ENOSPC, "full"), DiskFull),
        (OSError(errno.EDQUOT, "quota"), DiskFull),
        (OSError(errno.EROFS, "read-only"), StoreDenied),
        (OSError(errno.ESTALE, "stale"), StoreUnreachable),
        (PermissionError(errno.EACCES, "no"), StoreDenied),
        (NotADirectoryError(errno.ENOTDIR, "no"), FileNotFoundError),
    ],
)
def test_an_error_without_an_answer_is_classified(error: Exception, kind: type[Exception]) -> None:
    assert type(classify(error, "writing")) is kind


@pytest.mark.parametrize("error", [ValueError("bug"), KeyError("bug"), ObjectTooLarge(2, 1)])
def test_what_is_not_the_store_s_business_stays_as_it_is(error: Exception) -> None:
    assert classify(error, "writing") is error


def failing(*errors: Exception) -> tuple[Any, list[int]]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    return call, calls


def test_throttling_and_lost_connections_are_tried_again() -> None:
    call, calls = failing(answer("SlowDown"), ConnectionResetError(), answer("500"))
    assert retrying("writing", call, (0, 0, 0)) == "done"
    assert len(calls) == 4


def test_tries_are_bounded_and_the_last_trouble_is_told() -> None:
    call, calls = failing(*[answer("SlowDown")] * 9)
    with pytest.raises(StoreThrottled, match="writing in s3://b: SlowDown"):
        retrying("writing in s3://b", call, (0, 0))
    assert len(calls) == 3


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchKey", "NoSuchBucket", "412"])
def test_a_final_answer_is_not_tried_again(code: str) -> None:
    call, calls = failing(*[answer(code)] * 9)
    with pytest.raises((StoreDenied, FileNotFoundError, StoreUnreachable, FileExistsError)):
        retrying("writing", call, (0, 0))
    assert len(calls) == 1


def test_a_bug_is_raised_as_it_is() -> None:
    call, _ = failing(KeyError("x"))
    with pytest.raises(KeyError):
        retrying("writing", call, (0, 0))


def test_an_endpoint_that_nobody_listens_at_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = Store("s3://bucket/x", retry_delays_s=(0.01,))
    for use in (lambda: store.read("x"), lambda: [*store.list()], lambda: store.info("x")):
        with pytest.raises(StoreUnreachable, match="s3://bucket/x: EndpointConn"):
            use()


def test_a_store_that_has_answered_is_waited_for_and_one_that_never_did_is_not(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("pipeline.storage.troubles.time.sleep", waits.append)
    # Not the fixture, which may have been used before.
    store = Store(local_store.uri)

    def away(key: str, max_bytes: int | None) -> bytes:
        raise ConnectionError("no route")

    monkeypatch.setattr(store._backend, "get", away)
    with pytest.raises(StoreUnreachable):
        store.read("x")
    assert 7 < sum(waits) < 16  # an endpoint that is misspelt must be told soon
    store.write("y", b"")
    waits.clear()
    with store.in_haste(), pytest.raises(StoreUnreachable):
        store.read("x")
    assert sum(waits) < 16
    waits.clear()
    with pytest.raises(StoreUnreachable):
        store.read("x")
    assert 300 < sum(waits) < 640
    assert max(waits) <= 30


def test_missing_credentials_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(StoreDenied, match="NoCredentials"):
        Store("s3://bucket/x", retry_delays_s=(30,)).read("x")


def test_no_message_names_an_object(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: str, max_bytes: int | None) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", f"/x/{key}")

    monkeypatch.setattr(local_store._backend, "get", refuse)
    with pytest.raises(StoreDenied) as trouble:
        local_store.read("ann-smith/1.jpg")
    assert "ann-smith" not in str(trouble.value)
