"""Encoded photos <-> pixels: what a file is, is judged by its content, never by its name.

Knows formats, orientation and colour. Knows nothing of stores, sets or persons. Every trouble is
a ``PhotoError`` whose text begins with a short code, e.g. ``truncated: ...``.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.config import OperationSettings

Image = NDArray[np.uint8]
"""RGB, HWC, uint8 (``dladiff.image_values.Image``, without importing torch)."""


@dataclass(frozen=True)
class PhotoLimits:
    """Sizes beyond which a photo is not decoded."""

    max_bytes: int = 64 * 1024**2
    max_pixels: int = 64_000_000
    min_side_px: int = 32

    @classmethod
    def of(cls, operation: OperationSettings) -> Self:
        raise NotImplementedError


@dataclass(frozen=True)
class DecodedPhoto:
    """Pixels of a photo and what is worth knowing of its file."""

    image: Image
    """RGB, HWC, uint8, upright, sRGB."""
    format: str
    """``jpeg``, ``png``, ``webp``, ``heif``, ``avif``, ``bmp``, ``tiff`` or ``gif``."""
    copyright: str | None = None
    """Copyright notice of the file, one line; None: it has none."""
    notes: tuple[str, ...] = ()
    """What had to be changed: ``first_frame_of_animation``, ``alpha_flattened``..."""


def reason_code(reason: str) -> str:
    """The short code with which a reason begins."""
    return reason.partition(":")[0]


def decode_photo(content: bytes, limits: PhotoLimits = PhotoLimits()) -> DecodedPhoto:
    """Decodes one photo to upright sRGB pixels.

    Raises:
        PhotoError: Text ``code: explanation``.
    """
    raise NotImplementedError


def encode_png(image: Image, copyright: str | None = None) -> bytes:
    """Encodes RGB pixels losslessly; the same pixels always give the same bytes."""
    raise NotImplementedError


def decode_png(content: bytes) -> Image:
    """Reads back what ``encode_png`` wrote.

    Raises:
        ValueError: If it is no 8-bit RGB PNG.
    """
    raise NotImplementedError
