"""A store in an S3 bucket, through s3fs's connection and one S3 request per operation.

s3fs's file methods are not used where they make several requests of one: they would mix two
versions of an object, or complete half an upload. Used by ``storage``.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from fsspec.asyn import sync

from pipeline.errors import ConfigurationError
from pipeline.storage.backend import ObjectInfo, Skipped, content_type
from pipeline.storage.troubles import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ObjectTooLarge

_ENCRYPTION, _KMS_KEY = "DLADIFF_S3_ENCRYPTION", "DLADIFF_S3_KMS_KEY_ID"
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_READ_CHUNK = 1024**2
_opening = threading.Lock()


class S3Prefix:
    """Objects are the keys below ``prefix`` of ``bucket``.

    Credentials, endpoint and encryption come from the environment or the pod's role only:
    AWS_ACCESS_KEY_ID and alike, AWS_ENDPOINT_URL, DLADIFF_S3_ENCRYPTION (AES256, aws:kms or
    aws:kms:dsse; unset: as the bucket does by itself) and DLADIFF_S3_KMS_KEY_ID.
    """

    def __init__(
        self, bucket: str, prefix: str, repeat: Callable[[str, Callable[[], Any]], Any]
    ) -> None:
        """``repeat`` calls again after a wait where a page of a listing fails."""
        self._bucket, self._prefix = bucket, prefix + "/" if prefix else ""
        self._repeat = repeat

    def root_exists(self) -> bool:
        try:
            self._call("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str, max_bytes: int | None) -> bytes:
        fs = self._connection()

        async def read_all() -> bytes:
            response = await fs._call_s3("get_object", Bucket=self._bucket, Key=self._prefix + key)
            async with response["Body"] as body:
                size = response["ContentLength"]
                if max_bytes is not None and size > max_bytes:
                    raise ObjectTooLarge(size, max_bytes)
                data: bytes = await body.read()
            if len(data) != size:
                raise ConnectionError(f"got {len(data)} of {size} bytes")
            return data

        data: bytes = sync(fs.loop, read_all)
        return data

    def get_part(self, key: str, start: int, num_bytes: int) -> bytes:
        fs = self._connection()
        place = {"Bucket": self._bucket, "Key": self._prefix + key}

        async def read_part() -> bytes:
            wanted = f"bytes={start}-{start + num_bytes - 1}"
            response = await fs._call_s3("get_object", Range=wanted, **place)
            # A server that ignores ranges sends all of it: no more is read than was asked for.
            skipped = 0 if "ContentRange" in response else start
            expected = min(skipped + num_bytes, response["ContentLength"])
            data = bytearray()
            async with response["Body"] as body:
                # One read gives what has come by then, which may be less.
                while len(data) < expected:
                    if not (chunk := await body.read(expected - len(data))):
                        raise ConnectionError(f"got {len(data)} of {expected} bytes")
                    data += chunk
            return bytes(data[skipped:])

        try:
            part: bytes = sync(fs.loop, read_part)
        except OSError as error:
            if _is_beyond_the_end(error):
                return b""
            raise
        return part

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._put(key, data, metadata)

    def put_new(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._put(key, data, metadata, IfNoneMatch="*")

    def copy(self, source_key: str, final_key: str, metadata: dict[str, str]) -> None:
        self._call(
            "copy_object",
            Key=self._prefix + final_key,
            CopySource={"Bucket": self._bucket, "Key": self._prefix + source_key},
            MetadataDirective="REPLACE",
            Metadata=metadata,
            ContentType=content_type(final_key),
        )

    def head(self, key: str) -> ObjectInfo | None:
        try:
            found = self._call("head_object", Key=self._prefix + key)
        except FileNotFoundError:
            return None
        return ObjectInfo(
            key,
            found["ContentLength"],
            found["ETag"].strip('"'),
            found["LastModified"].timestamp(),
            {name.lower(): value for name, value in found.get("Metadata", {}).items()},
        )

    def sha256(self, key: str) -> str:
        fs = self._connection()

        async def digest() -> str:
            response = await fs._call_s3("get_object", Bucket=self._bucket, Key=self._prefix + key)
            result = hashlib.sha256()
            async with response["Body"] as body:
                while chunk := await body.read(_READ_CHUNK):
                    result.update(chunk)
            return result.hexdigest()

        text: str = sync(fs.loop, digest)
        return text

    def scan(
        self, prefix: str, skipped: Skipped, is_hidden: Callable[[str], bool]
    ) -> Iterator[ObjectInfo]:
        for page in self._pages(Prefix=self._prefix + prefix):
            for found in page.get("Contents", ()):
                key = found["Key"][len(self._prefix) :]
                if key.endswith("/") or not key:
                    continue  # a folder's placeholder, as consoles make them
                yield ObjectInfo(
                    key, found["Size"], found["ETag"].strip('"'), found["LastModified"].timestamp()
                )

    def folders(self, prefix: str) -> Iterator[str]:
        start = self._prefix + prefix
        for page in self._pages(Prefix=start, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"][len(start) : -1]

    def remove(self, keys: Sequence[str]) -> None:
        objects = [{"Key": self._prefix + key} for key in keys]
        answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", ()):
            raise _DeleteError(error)

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        return ()  # an object appears whole or not at all

    def _put(self, key: str, data: bytes, metadata: dict[str, str], **more: Any) -> None:
        self._call(
            "put_object",
            Key=self._prefix + key,
            Body=data,
            Metadata=metadata,
            ContentType=content_type(key),
            **more,
        )

    def _pages(self, **query: Any) -> Iterator[dict[str, Any]]:
        while True:
            page = self._repeat("listing", partial(self._call, "list_objects_v2", **query))
            yield page
            if not page.get("IsTruncated"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._connection().call_s3(method, Bucket=self._bucket, **arguments)

    def _connection(self) -> Any:
        settings = (
            item for item in os.environ.items() if item[0].startswith(("AWS_", "DLADIFF_S3_"))
        )
        with _opening:  # else twelve threads that start together open twelve
            return _process_connection(os.getpid(), tuple(sorted(settings)))


@lru_cache(maxsize=8)
def _process_connection(pid: int, settings: tuple[tuple[str, str], ...]) -> Any:
    """One connection pool per process and environment: making one costs half a CPU second.

    Not the parent's after a fork, which fsspec's event loop does not survive; safe to share
    between threads, unlike fsspec's own cache, since nothing here depends on the thread.
    """
    import s3fs

    fs = s3fs.S3FileSystem(
        anon=False,
        use_listings_cache=False,
        skip_instance_cache=True,
        s3_additional_kwargs=_encryption(os.environ),  # s3fs adds them to puts and copies
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": 64,
            # Retries are made in one place, storage_troubles; nested ones multiply.
            "retries": {"mode": "standard", "total_max_attempts": 1},
        },
    )
    fs.retries = 1
    return fs


def _is_beyond_the_end(error: OSError) -> bool:
    """Whether a range was refused since the object is empty."""
    response = getattr(error.__cause__, "response", {})
    return response.get("Error", {}).get("Code") in ("InvalidRange", "416")


def _encryption(environment: Mapping[str, str]) -> dict[str, str]:
    """Arguments of every request that makes an object.

    Raises:
        ConfigurationError: For an unknown encryption, or a key that would not be used.
    """
    encryption, key = environment.get(_ENCRYPTION), environment.get(_KMS_KEY)
    if encryption and encryption not in _ENCRYPTIONS:
        raise ConfigurationError(
            f"{_ENCRYPTION}={encryption!r}: expected one of {', '.join(_ENCRYPTIONS)}"
        )
    if key and not (encryption or "").startswith("aws:kms"):
        raise ConfigurationError(
            f"{_KMS_KEY} is used with {_ENCRYPTION}=aws:kms only: set that too"
        )
    arguments = {"ServerSideEncryption": encryption, "SSEKMSKeyId": key}
    return {name: value for name, value in arguments.items() if value}


class _DeleteError(OSError):
    """One key of a batch could not be deleted; carries S3's error code."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error.get("Message", "delete failed"))
        self.response = {"Error": error}
