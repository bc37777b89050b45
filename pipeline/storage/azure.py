"""A store in a container of Azure Blob Storage, through Microsoft's own client.

Not through adlfs, which passes no metadata on, does not wait for copies, and lists a container
that does not exist as an empty one. Used by ``storage``.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.storage.backend import ObjectInfo, Skipped, content_type
from pipeline.storage.troubles import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ObjectTooLarge

_CONNECTION_STRING, _ACCOUNT = "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"
_KEY, _SAS = "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"
_DELETE_BATCH = 256
"""So many blobs one request may delete."""


class AzurePrefix:
    """Blobs are the keys below ``prefix`` of a container.

    Account and credentials come from the environment or the pod's identity only:
    AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with
    AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or what azure-identity finds.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        """``bucket`` is ``container`` or ``container@account.dfs.core.windows.net``."""
        self._container, _, self._host = bucket.partition("@")
        self._prefix = prefix + "/" if prefix else ""

    def root_exists(self) -> bool:
        return bool(self._client().exists())

    def get(self, key: str, max_bytes: int | None) -> bytes:
        stream = self._client().download_blob(self._prefix + key)
        if max_bytes is not None and stream.size > max_bytes:
            raise ObjectTooLarge(stream.size, max_bytes)
        data: bytes = stream.readall()
        return data

    def get_part(self, key: str, start: int, num_bytes: int) -> bytes:
        from azure.core.exceptions import HttpResponseError

        try:
            stream = self._client().download_blob(self._prefix + key, start, num_bytes)
        except HttpResponseError as error:
            if getattr(error, "error_code", "") == "InvalidRange":  # the blob is empty
                return b""
            raise
        data: bytes = stream.readall()
        return data

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._put(key, data, metadata, overwrite=True)

    def put_new(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._put(key, data, metadata, overwrite=False)

    def copy(self, source_key: str, final_key: str, metadata: dict[str, str]) -> None:
        # Azure's own copy may be pending when it returns, and the blob empty until it is done.
        self.put(final_key, self.get(source_key, None), metadata)

    def head(self, key: str) -> ObjectInfo | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = self._client().get_blob_client(self._prefix + key).get_blob_properties()
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", "") == "ContainerNotFound":
                raise
            return None
        return None if _is_folder(found) else self._info(found)

    def sha256(self, key: str) -> str:
        result = hashlib.sha256()
        for chunk in self._client().download_blob(self._prefix + key).chunks():
            result.update(chunk)
        return result.hexdigest()

    def scan(
        self, prefix: str, skipped: Skipped, is_hidden: Callable[[str], bool]
    ) -> Iterator[ObjectInfo]:
        start = self._prefix + prefix
        for found in self._client().list_blobs(name_starts_with=start, include=["metadata"]):
            if not _is_folder(found):
                yield self._info(found, with_metadata=False)

    def folders(self, prefix: str) -> Iterator[str]:
        from azure.storage.blob import BlobPrefix

        start = self._prefix + prefix
        for found in self._client().walk_blobs(name_starts_with=start, delimiter="/"):
            if isinstance(found, BlobPrefix):
                yield found.name[len(start) : -1]

    def remove(self, keys: Sequence[str]) -> None:
        names = [self._prefix + key for key in keys]
        for first in range(0, len(names), _DELETE_BATCH):
            answers = self._client().delete_blobs(
                *names[first : first + _DELETE_BATCH], raise_on_any_failure=False
            )
            for answer in answers:
                if answer.status_code not in (202, 404):
                    raise _DeleteError(answer.status_code)

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        return ()  # a blob appears whole or not at all

    def _put(self, key: str, data: bytes, metadata: dict[str, str], *, overwrite: bool) -> None:
        from azure.storage.blob import ContentSettings

        self._client().upload_blob(
            self._prefix + key,
            data,
            overwrite=overwrite,
            # Azure wants identifiers as names: no hyphens.
            metadata={name.replace("-", "_"): value for name, value in metadata.items()},
            content_settings=ContentSettings(content_type=content_type(key)),
        )

    def _info(self, found: Any, with_metadata: bool = True) -> ObjectInfo:
        metadata = found.metadata or {} if with_metadata else {}
        return ObjectInfo(
            found.name[len(self._prefix) :],
            found.size,
            found.etag.strip('"'),
            found.last_modified.timestamp(),
            {name.lower().replace("_", "-"): value for name, value in metadata.items()},
        )

    def _client(self) -> Any:
        settings = (item for item in os.environ.items() if item[0].startswith("AZURE_"))
        service = _process_service(os.getpid(), self._host, tuple(sorted(settings)))
        return service.get_container_client(self._container)


@lru_cache(maxsize=8)
def _process_service(pid: int, host: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """One connection pool per process, account and environment; threads share it."""
    try:
        from azure.storage.blob import BlobServiceClient
    except ImportError:
        raise ConfigurationError("abfs:// needs the extra: pip install 'dladiff[azure]'") from None
    environment = dict(settings)
    # Retries are made in one place, ``troubles``; nested ones multiply.
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
    }
    if not host and (text := environment.get(_CONNECTION_STRING)):
        try:
            return BlobServiceClient.from_connection_string(text, **options)
        except ValueError:  # its text may show the key
            raise ConfigurationError(f"{_CONNECTION_STRING} is not a connection string") from None
    account = host.partition(".")[0] or environment.get(_ACCOUNT)
    if not account:
        raise ConfigurationError(
            f"abfs:// needs an account: set {_CONNECTION_STRING} or {_ACCOUNT}, or write "
            "abfs://container@account.dfs.core.windows.net/folder"
        )
    endpoint = host.replace(".dfs.", ".blob.") or f"{account}.blob.core.windows.net"
    return BlobServiceClient(f"https://{endpoint}", _credential(environment), **options)


def _credential(environment: dict[str, str]) -> Any:
    if found := environment.get(_KEY) or environment.get(_SAS):
        return found
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _is_folder(found: Any) -> bool:
    """A folder's placeholder, as consoles make them, or a folder of a hierarchical account."""
    return bool(found.name.endswith("/") or (found.metadata or {}).get("hdi_isfolder") == "true")


class _DeleteError(OSError):
    """One blob of a batch could not be deleted; carries the HTTP status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"delete failed with HTTP status {status_code}")
        self.status_code = status_code
