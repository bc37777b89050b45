"""RGB pixels -> PNG, losslessly. Knows no other format."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import PngImagePlugin


def encode_png(image: NDArray[np.uint8], copyright: str | None = None) -> bytes:
    """Encodes RGB pixels losslessly; the same pixels always give the same bytes.

    The file says that it is sRGB, and holds no metadata but the copyright notice.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 HWC RGB, got {image.dtype} {image.shape}")
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\x00")  # rendering intent: perceptual
    if copyright is not None:
        chunks.add_itxt("Copyright", copyright)
    buffer = io.BytesIO()
    picture = PillowImage.fromarray(np.ascontiguousarray(image))
    picture.save(buffer, "PNG", pnginfo=chunks, compress_level=4)
    return buffer.getvalue()
