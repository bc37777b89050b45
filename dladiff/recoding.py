"""What a platform leaves of a photo: a JPEG file, half the size. Whole 8-bit photos, by Pillow."""

import io

import numpy as np
import PIL.Image
from jaxtyping import UInt8

JPEG_QUALITY = 75
"""Of what handlings, figures and documents call JPEG 75."""

Photo = UInt8[np.ndarray, "_ _ 3"]
"""RGB, HWC, uint8; a photo and its copy may differ in size."""


def jpeg(photo: Photo, quality: int = JPEG_QUALITY) -> Photo:
    """A JPEG round trip."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(photo).save(buffer, format="JPEG", quality=quality)
    return np.array(PIL.Image.open(buffer))


def half_size(photo: Photo) -> Photo:
    """Half the size by Lanczos; it stays small, as what a platform serves."""
    height, width = photo.shape[:2]
    size = (max(1, round(width / 2)), max(1, round(height / 2)))
    return np.array(PIL.Image.fromarray(photo).resize(size, PIL.Image.Resampling.LANCZOS))
