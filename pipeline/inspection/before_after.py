"""Pictures for a person to judge by: original, protected photo, and the change made visible.

Knows pixels only; where they come from and where the picture goes is the caller's.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from pipeline.images.files import Image

CHANGE_FACTOR = 8
"""A change of one level is shown as so many levels around mid-grey."""
_HEADER_PX, _GAP_PX = 28, 8
_TITLES = ("original", "protected", f"change x{CHANGE_FACTOR}")


@dataclass(frozen=True)
class BeforeAfter:
    """One photo before and after, same size."""

    original: Image
    protected: Image
    caption: str = ""
    """Numbers such as ``max change 11 levels``; never a name."""


def amplified_change(original: Image, protected: Image) -> Image:
    """The change of every pixel times ``CHANGE_FACTOR`` around mid-grey (128 = no change)."""
    change = protected.astype(np.int16) - original.astype(np.int16)
    return np.clip(128 + CHANGE_FACTOR * change, 0, 255).astype(np.uint8)


def before_after_png(pairs: Sequence[BeforeAfter], height_px: int = 320) -> bytes:
    """One PNG with a row per photo: original | protected | change.

    Args:
        pairs: At least one photo.
        height_px: Height of each photo in the picture; smaller photos are not enlarged over 2x.

    Raises:
        ValueError: If there is no photo, or the two sides of one differ in size.
    """
    if not pairs:
        raise ValueError("expected at least one photo to show")
    rows = [_row(pair, height_px) for pair in pairs]
    width = max(row.width for row in rows)
    height = sum(row.height + _GAP_PX for row in rows)
    picture = PillowImage.new("RGB", (width, height), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height + _GAP_PX
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _row(pair: BeforeAfter, height_px: int) -> PillowImage.Image:
    if pair.original.shape != pair.protected.shape:
        raise ValueError(
            f"expected two photos of one size, got {pair.original.shape} and {pair.protected.shape}"
        )
    panels = (pair.original, pair.protected, amplified_change(pair.original, pair.protected))
    scale = min(2.0, height_px / pair.original.shape[0])
    height = max(1, round(pair.original.shape[0] * scale))
    width = max(1, round(pair.original.shape[1] * scale))
    row = PillowImage.new("RGB", (3 * width + 2 * _GAP_PX, height + _HEADER_PX), "white")
    draw = ImageDraw.Draw(row)
    font = ImageFont.load_default(14)
    for index, (panel, title) in enumerate(zip(panels, _TITLES, strict=True)):
        left = index * (width + _GAP_PX)
        text = f"{title}  {pair.caption}" if title == "protected" else title
        draw.text((left + 2, 6), text, fill="black", font=font)
        row.paste(PillowImage.fromarray(panel).resize((width, height)), (left, _HEADER_PX))
    return row
