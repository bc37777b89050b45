"""Files that are not as their format wants them and that every viewer shows all the same.

A JPEG may lack the marker that ends it, and bytes may stand behind a picture's end. Knows where a
picture ends; decodes only to tell a whole picture from one that is really cut.
"""

import io
import re

import numpy as np
from PIL import Image as PillowImage

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""A JPEG marker, outside of coded pixels and of their restart marks (ITU-T T.81, B.1.1)."""
_START, _END, _TEMPORARY = 0xD8, 0xD9, 0x01


def with_end(content: bytes) -> bytes | None:
    """A JPEG whose pixels are all there, with its end marker; None: it is really cut, or none.

    Pixels that lack their code depend on what follows the cut, those of a whole picture do not: so
    it is decoded with two different continuations.
    """
    body = content.rstrip(b"\xff")
    if not content.startswith(b"\xff\xd8"):
        return None
    ended = body + b"\xff\xd9"
    first, second = _pixels(ended), _pixels(body + b"\xaa\x55" * 512 + b"\xff\xd9")
    if first is None or second is None or not np.array_equal(first, second):
        return None
    return ended


def has_trailing_bytes(content: bytes) -> bool:
    """Whether bytes follow the end of a JPEG, PNG or WebP: a video, another picture, garbage."""
    end = _end_of(content)
    return end is not None and end < len(content)


def _pixels(content: bytes) -> np.ndarray | None:
    try:
        with PillowImage.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError):
        return None


def _end_of(content: bytes) -> int | None:
    """Where the first picture of a file ends; None: it does not say, or it is cut."""
    if content.startswith(b"\xff\xd8"):
        return _end_of_jpeg(content)
    if content.startswith(b"\x89PNG"):
        position = 8
        while position + 12 <= len(content):
            kind = content[position + 4 : position + 8]
            position += 12 + int.from_bytes(content[position : position + 4], "big")
            if kind == b"IEND":
                return position
        return None
    if content.startswith(b"RIFF"):
        size = int.from_bytes(content[4:8], "little")
        return 8 + size + size % 2
    return None


def _end_of_jpeg(content: bytes) -> int | None:
    position = 0
    while (found := _MARKER.search(content, position)) is not None:
        kind, position = found.group(1)[0], found.end()
        if kind == _END:
            return position
        if kind not in (_START, _TEMPORARY):
            # A scan's header has a length too; its pixels are passed by the next search.
            position += int.from_bytes(content[position : position + 2], "big")
    return None
