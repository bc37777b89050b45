"""A store in any other bucket that fsspec knows, as Google's with its extra.

Uses only what all fsspec file systems share. Used by ``storage``.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.storage.backend import ObjectInfo, Skipped, content_type
from pipeline.storage.troubles import ObjectTooLarge

_EXTRAS = {"gs": ("gcsfs", "gcs")}
_METADATA_FIELD = "metadata"
_VERSION_FIELDS = ("etag", "ETag", "generation", "md5Hash")
_TIME_FIELDS = ("LastModified", "last_modified", "updated", "mtime", "created")


class FsspecPrefix:
    """Objects are the keys below ``prefix`` of ``bucket``."""

    def __init__(self, scheme: str, bucket: str, prefix: str) -> None:
        self._scheme = scheme
        self._base = f"{bucket}/{prefix}/" if prefix else f"{bucket}/"
        self._fs: Any = None
        self._pid = 0

    def root_exists(self) -> bool:
        return bool(self._connection().exists(self._base.partition("/")[0]))

    def get(self, key: str, max_bytes: int | None) -> bytes:
        if max_bytes is not None:
            size = self._connection().info(self._base + key)["size"]
            if size > max_bytes:
                raise ObjectTooLarge(size, max_bytes)
        data: bytes = self._connection().cat_file(self._base + key)
        return data

    def get_part(self, key: str, start: int, num_bytes: int) -> bytes:
        end = start + num_bytes
        data: bytes = self._connection().cat_file(self._base + key, start=start, end=end)
        return data

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._connection().pipe_file(self._base + key, data, **self._extra(key, metadata))

    def put_new(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self._connection().pipe_file(
            self._base + key, data, mode="create", **self._extra(key, metadata)
        )

    def copy(self, source_key: str, final_key: str, metadata: dict[str, str]) -> None:
        # Google's copies keep the source's metadata, which has the same hash.
        self._connection().cp_file(self._base + source_key, self._base + final_key)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            found = self._connection().info(self._base + key)
        except FileNotFoundError:
            return None
        return self._info(found) if found["type"] == "file" else None

    def sha256(self, key: str) -> str:
        return hashlib.sha256(self.get(key, None)).hexdigest()

    def scan(
        self, prefix: str, skipped: Skipped, is_hidden: Callable[[str], bool]
    ) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        path = self._base + folder if folder else self._base.rstrip("/")
        waiting = [path]
        # Not by fsspec's walk, which leaves out what it could not list: photos would seem gone.
        while waiting:
            for found in self._listing(waiting.pop()):
                if found["type"] == "directory":
                    waiting.append(found["name"])
                    continue
                info = self._info(found)
                if info.key.startswith(prefix) and not info.key.endswith("/"):
                    yield info

    def folders(self, prefix: str) -> Iterator[str]:
        for found in self._listing((self._base + prefix).rstrip("/")):
            if found["type"] == "directory":
                yield found["name"].rstrip("/").rpartition("/")[2]

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self._connection().rm_file(self._base + key)
            except FileNotFoundError:
                continue

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        return ()  # an object appears whole or not at all

    def _listing(self, path: str) -> list[dict[str, Any]]:
        """What lies in a folder, by name; nothing where there is no such folder."""
        try:
            found = self._connection().ls(path, detail=True)
        except FileNotFoundError:
            return []
        own = path.strip("/")  # some list a folder's placeholder in the folder itself
        return sorted(
            (each for each in found if each["name"].strip("/") != own), key=itemgetter("name")
        )

    def _extra(self, key: str, metadata: dict[str, str]) -> dict[str, Any]:
        """Metadata in the vendor's own argument names."""
        if self._scheme == "gs":
            return {"metadata": metadata, "content_type": content_type(key)}
        return {}

    def _info(self, found: dict[str, Any]) -> ObjectInfo:
        name = found["name"].lstrip("/")
        metadata = found.get(_METADATA_FIELD) or {}
        return ObjectInfo(
            name[len(self._base) :],
            found["size"],
            _version(found),
            _seconds(found),
            {key.lower().replace("_", "-"): str(value) for key, value in metadata.items()},
        )

    def _connection(self) -> Any:
        if self._fs is None or self._pid != os.getpid():
            module, extra = _EXTRAS.get(self._scheme, ("fsspec", ""))
            try:
                importlib.import_module(module)
            except ImportError:
                raise ConfigurationError(
                    f"{self._scheme}:// needs the extra: pip install 'dladiff[{extra}]'"
                ) from None
            import fsspec

            self._fs = fsspec.filesystem(
                self._scheme, use_listings_cache=False, skip_instance_cache=True
            )
            self._pid = os.getpid()
        return self._fs


def _version(found: dict[str, Any]) -> str:
    for field in _VERSION_FIELDS:
        if found.get(field):
            return str(found[field]).strip('"')
    return f"{found['size']}-{_seconds(found)}"


def _seconds(found: dict[str, Any]) -> float:
    for field in _TIME_FIELDS:
        value = found.get(field)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0
