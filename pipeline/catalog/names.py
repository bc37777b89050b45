"""Which names in INPUT are nobody's content, and which ones a person leaves out.

Knows names only: what is hidden or a system's is passed over without being opened.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

_SYSTEM_NAMES = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("lost+found", "system volume information", "__macosx"),
        *("$recycle.bin", "recycler", "#recycle", "@recycle", "network trash folder"),
        *("#snapshot", "~snapshot", "@snapshot", "@recently-snapshot"),
        *("@eadir", "@tmp", "temporary items", "thevolumesettingsfolder"),
    )
)
"""What systems, network drives and archivers keep beside photos: thumbnails, deleted and earlier
copies. Compared without regard to case."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden (``.name``) or a system's."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def hidden_part(key: str) -> str | None:
    """The part of a key up to the first hidden name; None: nothing in it is hidden."""
    parts = key.split("/")
    for number, part in enumerate(parts, start=1):
        if is_hidden(part):
            return "/".join(parts[:number])
    return None


@dataclass(frozen=True)
class Choice:
    """Which files of INPUT a person wants to be looked at: all, unless they say otherwise."""

    include: Sequence[str] = ()
    """Patterns as a shell has them; a file must match one of them, if there are any."""
    exclude: Sequence[str] = ()
    """A file must match none of them."""

    def takes(self, key: str) -> bool:
        """Whether a file, or a folder whose key ends in ``/``, is looked at."""
        if self.include and not key.endswith("/") and not _matches(key, self.include):
            return False
        return not _matches(key, self.exclude)


def _matches(key: str, patterns: Sequence[str]) -> bool:
    """A pattern with a slash is compared with the whole key, one without with each name in it."""
    names = key.split("/")
    return any(
        any(map(_compiled(pattern).match, [key] if "/" in pattern else names))
        for pattern in patterns
    )


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern), re.IGNORECASE)


def extension(name: str) -> str:
    """``jpg`` of ``ann/1.JPG``; empty where there is none."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[2].lower() if "." in last else ""
