"""The files below a local folder, in name order, and what of it was left out.

Knows links, permissions and odd names of a file system. Opens no file. Used by ``local``.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

from pipeline.storage.backend import ObjectInfo, Skipped

TEMPORARY = ".dladiff-", ".tmp"
"""How names of files begin and end that are not finished."""


class FolderWalk:
    """Goes through a folder once; what is left out is counted."""

    def __init__(
        self,
        is_inside: Callable[[str], bool],
        skipped: Skipped,
        is_hidden: Callable[[str], bool],
    ) -> None:
        """
        Args:
            is_inside: Whether a real path lies where links may lead.
            skipped: Counts what is left out, and says whether a denied folder is an error.
            is_hidden: Says of a name that it is left out unopened, whether file or folder.
        """
        self._is_inside, self._skipped, self._is_hidden = is_inside, skipped, is_hidden

    def files(self, path: str, key: str, start: str = "") -> Iterator[ObjectInfo]:
        """Files below ``path``, whose key is ``key``; directly in it, names begin with ``start``.

        Raises:
            PermissionError: The folder itself may not be read, or a deeper one where that is no
                reason to go on.
        """
        return self._walk(path, key, start, (os.path.realpath(path),))

    def _walk(
        self, path: str, key: str, start: str, chain: tuple[str, ...]
    ) -> Iterator[ObjectInfo]:
        """``chain`` are the real folders above, against loops.

        Only one folder's names are held at a time per level.
        """
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError:
            if len(chain) == 1 or not self._skipped.tolerates_denied:
                raise
            self._skipped.denied.append(key)
            return
        for entry in entries:
            if not entry.name.startswith(start) or is_temporary(entry.name):
                continue
            child = f"{key}/{entry.name}" if key else entry.name
            try:
                deeper = self._look_at(entry, child, chain)
            except PermissionError:  # the folder's names may be read, but no more of what is in it
                if not self._skipped.tolerates_denied:
                    raise
                self._skipped.denied.append(child)
            else:
                yield from deeper

    def _look_at(
        self, entry: os.DirEntry[str], key: str, chain: tuple[str, ...]
    ) -> Iterator[ObjectInfo]:
        if self._is_hidden(entry.name):
            return self._leave_out("hidden")
        if not _is_text(entry.name):
            return self._leave_out("undecodable_name")
        real = os.path.realpath(entry.path) if entry.is_symlink() else None
        if real is not None and not self._is_inside(real):
            return self._leave_out("link_leaves_folder")
        if entry.is_dir():
            real = real or os.path.join(chain[-1], entry.name)
            if real in chain:
                return self._leave_out("link_loop")
            return self._walk(entry.path, key, "", (*chain, real))
        if not entry.is_file():
            return self._leave_out("not_a_file")
        with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
            return iter((info_of(key, entry.stat()),))
        return iter(())

    def _leave_out(self, reason: str) -> Iterator[ObjectInfo]:
        self._skipped[reason] += 1
        return iter(())


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    """Description of a file."""
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return ObjectInfo(key, status.st_size, version, status.st_mtime_ns / 1e9)


def is_temporary(name: str) -> bool:
    """Whether a writer of ours has not finished the file of this name."""
    return name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])


def _is_text(name: str) -> bool:
    """Whether a manifest column could hold the name: the file system allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
