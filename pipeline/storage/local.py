"""A store in a local folder: whole files only, and no way out of the folder.

Every file is built under a hidden temporary name beside its final one, brought to disk and then
renamed or linked, so that a reader or a power cut never meets half of it. Used by ``storage``.
"""

import contextlib
import errno
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from pipeline.storage.backend import ObjectInfo, Skipped
from pipeline.storage.troubles import NotSupported, ObjectTooLarge
from pipeline.storage.walk import TEMPORARY, FolderWalk, info_of, is_temporary

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_COPY_BYTES = 1024**2


class LocalFolder:
    """Objects are the files below ``root``; a key is a path relative to it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)

    def root_exists(self) -> bool:
        return os.path.isdir(self._root)

    def get(self, key: str, max_bytes: int | None) -> bytes:
        with open(self._path(key), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is None:
                return file.read()
            if size > max_bytes:
                raise ObjectTooLarge(size, max_bytes)
            data = file.read(max_bytes + 1)  # it may grow meanwhile, or be a device without size
            if len(data) > max_bytes:
                raise ObjectTooLarge(len(data), max_bytes)
            return data

    def get_part(self, key: str, start: int, num_bytes: int) -> bytes:
        with open(self._path(key), "rb", buffering=0) as file:
            if start:
                file.seek(start)
            return file.read(num_bytes)

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        final = self._path(key)
        with self._temporary(final, data) as temporary:
            os.replace(temporary, final)
            _sync_folder(final)

    def put_new(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        final = self._path(key)
        with self._temporary(final, data) as temporary:
            try:
                os.link(temporary, final)  # fails where the name exists, unlike a rename
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise NotSupported(error.errno, "no hard links on this file system") from None
                raise
            _sync_folder(final)

    def copy(self, source_key: str, final_key: str, metadata: dict[str, str]) -> None:
        final = self._path(final_key)
        with open(self._path(source_key), "rb") as source:
            chunks = iter(lambda: source.read(_COPY_BYTES), b"")
            with self._temporary(final, chunks) as temporary:
                os.replace(temporary, final)
                _sync_folder(final)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            path = self._path(key)
            return info_of(key, os.stat(path)) if os.path.isfile(path) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sha256(self, key: str) -> str:
        with open(self._path(key), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def scan(
        self, prefix: str, skipped: Skipped, is_hidden: Callable[[str], bool]
    ) -> Iterator[ObjectInfo]:
        folder, _, start = prefix.rpartition("/")
        path = self._path(folder) if folder else self._root
        yield from FolderWalk(self._inside, skipped, is_hidden).files(path, folder, start)

    def folders(self, prefix: str) -> Iterator[str]:
        path = self._path(prefix.rstrip("/")) if prefix else self._root
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
            yield from sorted(entry.name for entry in found if _is_folder(entry))

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            self._prune(os.path.dirname(path))

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        found, limit = list[ObjectInfo](), time.time() - older_than_s
        for folder, _, names in os.walk(self._root):
            for path in (os.path.join(folder, name) for name in names if is_temporary(name)):
                with contextlib.suppress(FileNotFoundError):  # its writer has just finished
                    info = info_of(os.path.relpath(path, self._root), os.stat(path))
                    if info.modified < limit:
                        found.append(info)
        return found

    def _path(self, key: str) -> str:
        """Absolute path of a key.

        Raises:
            FileNotFoundError: If the key would leave the folder, by itself or through a link.
        """
        parts = key.split("/")
        if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise FileNotFoundError(f"not a key of a local folder: {key!r}")
        path = os.path.join(self._root, *parts)
        if not self._inside(os.path.realpath(path)):
            raise FileNotFoundError("a symbolic link leaves the folder")
        return path

    def _inside(self, real_path: str) -> bool:
        return real_path == self._real_root or real_path.startswith(
            self._real_root.rstrip("/") + "/"
        )

    @contextlib.contextmanager
    def _temporary(self, final: str, chunks: bytes | Iterator[bytes]) -> Iterator[str]:
        """A complete file on disk under a hidden name beside ``final``; gone afterwards."""
        folder, middle = os.path.dirname(final), uuid.uuid4().hex
        temporary = os.path.join(folder, middle.join(TEMPORARY))
        descriptor = _create(temporary)
        try:
            with open(descriptor, "wb") as file:
                for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _prune(self, folder: str) -> None:
        """Removes folders that became empty; a writer that loses its folder makes it again."""
        while folder != self._root and folder.startswith(self._root):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)


def _create(path: str) -> int:
    """Opens a new file, with its folders; mode as the umask says, since others serve the images."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):  # a neighbour pruned the empty folder
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    raise FileNotFoundError("the folder is removed again and again")


def _sync_folder(path: str) -> None:
    """Makes a new name durable, not only the bytes behind it."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link into a folder that may not be read is none."""
    with contextlib.suppress(PermissionError):
        return entry.is_dir()
    return False
