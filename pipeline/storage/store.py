"""The only file that opens an object store: reading, whole writes, first-writer-wins, copies.

Knows folders and buckets as one thing. Knows nothing of photos, sets or runs.
"""

import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeVar, cast

from pipeline.errors import ConfigurationError, PipelineError
from pipeline.storage.azure import AzurePrefix
from pipeline.storage.backend import Backend, ObjectInfo, Skipped
from pipeline.storage.local import LocalFolder
from pipeline.storage.other import FsspecPrefix
from pipeline.storage.traffic import Operation, counted
from pipeline.storage.troubles import (
    PATIENT_DELAYS_S,
    RETRY_DELAYS_S,
    NotSupported,
    ObjectTooLarge,
    retrying,
)
from pipeline.storage.uris import folder_and_name, lies_below, normalise_uri, split_uri

__all__ = [
    "HASH_METADATA",
    "HashMismatch",
    "NotSupported",
    "ObjectInfo",
    "ObjectTooLarge",
    "Skipped",
    "Store",
    "lies_below",
    "normalise_uri",
    "open_store",
    "read_uri",
]

_log = logging.getLogger("dladiff.storage")

T = TypeVar("T")

_OPERATIONS: dict[str, Operation] = {
    "looking for the root": "head",
    "looking up": "head",
    "reading": "read",
    "looking into": "read",
    "hashing": "read",
    "writing": "write",
    "creating": "write",
    "publishing": "copy",
    "deleting": "delete",
    "looking around": "list",
    "listing": "list",
}
"""Kinds of request by what a message calls them."""

_END = object()
_DELETE_BATCH = 1000
"""Keys per request: the most that S3 takes."""

HASH_METADATA = "dladiff-sha256"
"""Metadata name under which buckets keep the sha256 of an object that this package wrote."""


class HashMismatch(PipelineError):  # noqa: N818 - a fact about the object
    """An object does not have the bytes that its record promises."""


class Store:
    """A folder or bucket prefix as a flat map from keys to immutable-when-written objects.

    Cheap to make, to pickle and to reopen in another process; connects at first use. All
    methods raise ``errors.EnvironmentTrouble`` where the store is denied, unreachable, full or
    still throttling after back-off. Safe to use from several threads.
    """

    def __init__(
        self,
        uri: str,
        *,
        single_writer: bool = False,
        retry_delays_s: Sequence[float] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            uri: Root, see ``normalise_uri``.
            single_writer: The store need not honour exclusive creation; then at most one run,
                without overlapping attempts, may write.
            retry_delays_s: Waits in seconds between tries; None: ``PATIENT_DELAYS_S`` for a store
                that has answered this object before, else ``RETRY_DELAYS_S``.
        """
        self.uri = normalise_uri(uri)
        self.single_writer = single_writer
        self.retry_delays_s = None if retry_delays_s is None else tuple(retry_delays_s)
        self._has_answered = False
        self._of_thread = threading.local()
        self._backend = self._make_backend()

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.uri, self.single_writer, self.retry_delays_s)

    @contextmanager
    def in_haste(self) -> Iterator[None]:
        """Inside the block this thread waits seconds, not minutes, for a store that is away."""
        before = getattr(self._of_thread, "in_haste", False)
        self._of_thread.in_haste = True
        try:
            yield
        finally:
            self._of_thread.in_haste = before

    def uri_of(self, key: str) -> str:
        """Absolute URI of a key."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def key_of(self, uri: str) -> str:
        """Key of an absolute URI.

        Raises:
            ValueError: If it does not lie below this store's root.
        """
        root = self.uri.rstrip("/") + "/"
        if not uri.startswith(root):
            raise ValueError(f"expected a URI below {root}, got another place")
        return uri[len(root) :]

    def root_exists(self) -> bool:
        """Whether the local folder, or the bucket, is there."""
        return self._do("looking for the root", self._backend.root_exists)

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        """The whole object, of one version.

        Raises:
            FileNotFoundError: If there is none, or a symbolic link leaves the root.
            ObjectTooLarge: If it has more than ``max_bytes`` bytes.
        """
        return self._do("reading", lambda: self._backend.get(key, max_bytes))

    def read_start(self, key: str, num_bytes: int) -> bytes:
        """The first bytes of an object, in one request; fewer where it has no more.

        Raises:
            FileNotFoundError: As ``read``.
        """
        return self.read_part(key, 0, num_bytes)

    def read_part(self, key: str, start: int, num_bytes: int) -> bytes:
        """Bytes of an object from ``start`` on, in one request; fewer where it has no more.

        Raises:
            FileNotFoundError: As ``read``.
        """
        return self._do("looking into", lambda: self._backend.get_part(key, start, num_bytes))

    def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Replaces the object in one step: a reader sees the old bytes or all of the new ones.

        The sha256 of ``data`` is always kept as metadata where the store has metadata.
        """
        full = self._metadata(data, metadata)
        self._do("writing", lambda: self._backend.put(key, data, full))

    def create_exclusive(self, key: str, data: bytes) -> bool:
        """Writes an object unless there is one already; of racing writers exactly one wins.

        Args:
            data: Must tell this writer from all others, e.g. by an attempt's id: after a refusal
                the object is read back, and equal bytes mean that an earlier try of ours, whose
                answer was lost, had won.

        Returns:
            Whether the object is ours.
        """
        if self.single_writer:
            if self.exists(key):
                return self._holds(key, data)
            self.write(key, data)
            return True
        return self._create(key, data)

    def exists(self, key: str) -> bool:
        """Whether there is such an object; a folder is none."""
        return self.info(key) is not None

    def info(self, key: str) -> ObjectInfo | None:
        """Description of an object with its metadata, None if there is none."""
        return self._do("looking up", lambda: self._backend.head(key))

    def list(
        self,
        prefix: str = "",
        skipped: Skipped | None = None,
        is_hidden: Callable[[str], bool] = lambda _: False,
    ) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, streamed, in name order per folder.

        Args:
            prefix: E.g. ``images/ann/``; need not end at a slash.
            skipped: Counts what was left out, by reason: ``link_leaves_folder``, ``link_loop``,
                ``undecodable_name``, ``not_a_file``, ``hidden``; and notes what was ``denied``.
            is_hidden: Says of a file's or folder's name that nobody needs to open it: local folders
                are spared then. A bucket lists all keys; these are for the caller to leave out.
        """
        skipped = Skipped() if skipped is None else skipped
        found = self._backend.scan(prefix, skipped, is_hidden)
        yield from self._listed(found)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Names of the folders directly below ``prefix``, which is '' or ends in a slash."""
        yield from self._listed(self._backend.folders(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; missing ones are no error."""
        rest = iter(keys)
        while batch := [*islice(rest, _DELETE_BATCH)]:
            self._do("deleting", partial(self._backend.remove, batch))

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        """Temporary files of writers that were killed; ``list`` shows none of them.

        Args:
            older_than_s: A file that was written to more recently may have a living writer.
        """
        return self._do("looking around", lambda: self._backend.temporaries(older_than_s))

    def sweep(self, older_than_s: float) -> int:
        """Removes ``temporaries``; says how many."""
        keys = [info.key for info in self.temporaries(older_than_s)]
        self.delete(keys)
        return len(keys)

    def copy_published(self, staged_key: str, final_key: str, sha256: str) -> None:
        """Puts a staged object under its final key, within the store, whole and verified.

        Args:
            staged_key: Written once by ``write`` and never changed.
            sha256: Hex digest that the staged object must have.

        Raises:
            FileNotFoundError: If there is no staged object.
            HashMismatch: If the staged object has other bytes; the final key is left alone.
        """
        metadata = {HASH_METADATA: sha256}
        with self.in_haste():  # whoever publishes asks for the lock between tries
            found = self.sha256_of(staged_key)
            if found != sha256:
                raise HashMismatch(
                    f"a staged object has sha256 {found[:12]}, promised {sha256[:12]}"
                )
            self._do("publishing", lambda: self._backend.copy(staged_key, final_key, metadata))

    def sha256_of(self, key: str, read: bool = False) -> str:
        """Hex digest of an object's bytes.

        Args:
            read: Read the bytes even where the store keeps their digest as metadata.

        Raises:
            FileNotFoundError: If there is no such object.
        """
        if not read:
            info = self.info(key)
            if info is not None and HASH_METADATA in info.metadata:
                return info.metadata[HASH_METADATA]
        return self._do("hashing", lambda: self._backend.sha256(key))

    def probe_exclusive_creation(self) -> bool:
        """Whether this store honours exclusive creation; writes and deletes one small object.

        A store that ignores If-None-Match would let two runs overwrite each other's commits.
        """
        key = f"locks/probe-{uuid.uuid4().hex}"
        try:
            return self._create(key, b"first") and not self._create(key, b"second")
        except NotSupported as error:
            _log.debug("exclusive creation is not supported: %s", error)
            return False
        finally:
            self.delete([key])

    def store_time(self) -> float:
        """Now by the store's own clock, seconds since 1970 UTC, to compare with ``modified``."""
        key = f"locks/clock-{uuid.uuid4().hex}"
        self.write(key, b"")
        info = self.info(key)
        self.delete([key])
        if info is None:
            raise PipelineError("the store lost an object that it had accepted a moment ago")
        return info.modified

    def _listed(self, found: Iterator[T]) -> Iterator[T]:
        """Without retries here: a generator that raised is at its end, which would look whole."""
        while True:
            item = retrying(f"listing {self.uri}", lambda: next(found, _END), ())
            if item is _END:
                return
            yield cast(T, item)

    def _create(self, key: str, data: bytes) -> bool:
        full = self._metadata(data, None)
        try:
            self._do("creating", lambda: self._backend.put_new(key, data, full))
        except FileExistsError:
            return self._holds(key, data)
        return True

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key, max_bytes=len(data)) == data
        except (FileNotFoundError, ObjectTooLarge):
            return False

    def _metadata(self, data: bytes, more: Mapping[str, str] | None) -> dict[str, str]:
        return {HASH_METADATA: hashlib.sha256(data).hexdigest(), **(more or {})}

    def _do(self, action: str, call: Callable[[], T]) -> T:
        """Calls with back-off. Any answer shows a living store, also that there is no object."""
        operation = _OPERATIONS[action]
        delays_s = self.retry_delays_s
        if delays_s is None:
            is_patient = self._has_answered and not getattr(self._of_thread, "in_haste", False)
            delays_s = PATIENT_DELAYS_S if is_patient else RETRY_DELAYS_S
        try:
            result = retrying(f"{action} in {self.uri}", lambda: counted(operation, call), delays_s)
        except (FileNotFoundError, FileExistsError):
            self._has_answered = True
            raise
        self._has_answered = True
        return result

    def _make_backend(self) -> Backend:
        scheme, bucket, path = split_uri(self.uri)
        if scheme == "file":
            return LocalFolder(path)
        if scheme == "s3":
            # Imported late: `dladiff --help` on local folders must not load a bucket's client.
            from pipeline.storage.s3 import S3Prefix

            return S3Prefix(bucket, path, self._do)
        if scheme == "abfs":
            return AzurePrefix(bucket, path)
        return FsspecPrefix(scheme, bucket, path)


def open_store(uri: str, *, single_writer: bool = False) -> Store:
    """The store at a path or URI; see ``Store``.

    Raises:
        ConfigurationError: If ``uri`` is not one of ours.
    """
    return Store(uri, single_writer=single_writer)


def read_uri(uri: str, max_bytes: int | None = None, root: str | None = None) -> bytes:
    """Reads one object by its absolute URI, as found in a row.

    Args:
        uri: Of an object, as ``Store.uri_of`` or a catalog file gives it.
        max_bytes: See ``Store.read``.
        root: INPUT or the allowed prefix that ``uri`` must lie below, links followed; None: its
            own folder.

    Raises:
        ConfigurationError: If ``uri`` does not lie below ``root``.
    """
    root = folder_and_name(uri)[0] if root is None else root
    store = _cached_store(root, os.getpid())
    try:
        key = store.key_of(uri)
    except ValueError:
        raise ConfigurationError(f"a photo lies outside {store.uri}: allow its prefix") from None
    return store.read(key, max_bytes)


@lru_cache(maxsize=64)
def _cached_store(root: str, pid: int) -> Store:
    return open_store(root)


def _reopen(
    kind: type[Store], uri: str, single_writer: bool, retry_delays_s: tuple[float, ...] | None
) -> Store:
    return kind(uri, single_writer=single_writer, retry_delays_s=retry_delays_s)
