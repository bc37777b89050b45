"""The little of a photo's metadata that is used: how it was held, and a copyright notice.

All else (place, device, time, thumbnails, which show the unprotected photo) ends here.
"""

import re
from dataclasses import dataclass

from PIL import Image

from dladiff.pictures import ORIENTATION_TAG, UPRIGHT

_COPYRIGHT = 0x8298
_MAX_COPYRIGHT_CHARACTERS = 300


@dataclass(frozen=True)
class Metadata:
    """What is kept of EXIF and text chunks."""

    orientation: int
    """EXIF orientation, 1 to 8; 1: upright as stored, or unknown."""
    copyright: str | None
    """One line; None: there is none."""
    readable: bool
    """False: the EXIF block is damaged, and the photo may lie on its side."""


def read_metadata(picture: Image.Image) -> Metadata:
    """Reads a loaded picture's metadata; damaged ones are no reason to refuse a photo."""
    notice = picture.info.get("Copyright")  # a text chunk of PNG
    try:
        exif = picture.getexif()
        orientation = exif.get(ORIENTATION_TAG, 1)
        notice = exif.get(_COPYRIGHT) or notice
    except Exception:  # damaged metadata make the parsers raise almost anything
        return Metadata(1, _one_line(notice), readable=False)
    known = orientation if orientation in UPRIGHT else 1
    return Metadata(known, _one_line(notice), readable=True)


def _one_line(notice: object) -> str | None:
    if isinstance(notice, bytes):
        notice = notice.decode("utf-8", "replace")
    if not isinstance(notice, str):
        return None
    # EXIF separates photographer and editor by NUL.
    words = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\s]+", " ", notice).strip()
    return words[:_MAX_COPYRIGHT_CHARACTERS] or None
