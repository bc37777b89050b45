"""What the first bytes of a file say of it: a photo that is read, one that is not, or neither.

Knows signatures of formats. Opens nothing and decodes nothing.
"""

import re

NUM_START_BYTES = 32
"""Bytes at the start of a file that tell its kind."""

_READ = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a"
    rb"|....ftyp(?:hei|hev|mif|msf|avi)"
    rb"|BM....\x00\x00\x00\x00....[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00"
    rb"|II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]",
    re.DOTALL,
)
"""JPEG (JFIF, Exif, MPO), PNG, WebP, GIF, HEIF, AVIF, BMP and TIFF."""

_NOT_READ: dict[str, re.Pattern[bytes]] = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "JPEG XL": rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
        "JPEG 2000": rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        "JPEG XR": rb"II\xbc\x01",
        "camera raw": (
            rb"II\*\x00....CR|....ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\x00|\x00MRM|FOVb"
        ),
        "Photoshop": rb"8BPS",
        "GIMP": rb"gimp xcf",
        "Netpbm": rb"P[4567]\s",
        "OpenEXR": rb"\x76\x2f\x31\x01",
        "Radiance": rb"#\?(?:RADIANCE|RGBE)",
        "QOI": rb"qoif",
        "BPG": rb"BPG\xfb",
    }.items()
}
"""Formats of photos that are not read: such a file gets a row that says so."""


def is_read(start: bytes) -> bool:
    """Whether a file that begins like this is of a format that is read."""
    return unread_format(start) is None and _READ.match(start) is not None


def unread_format(start: bytes) -> str | None:
    """The format of a photo that is not read; None: it is none of those that are known."""
    return next((name for name, form in _NOT_READ.items() if form.match(start)), None)


def may_be_photo(start: bytes) -> bool:
    """Whether a file that begins like this is a photo, whether or not its format is read."""
    return is_read(start) or unread_format(start) is not None
