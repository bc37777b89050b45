"""Which pixel values a recogniser's graph takes: measured on faces, since no file says it.

Knows the ranges that published graphs take and how well a graph tells faces apart in each. The
faces are the first of ``skimage.data.lfw_subset``: grey, 25 px, enlarged.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.config import PixelRange
from dladiff.image_values import Images

KnownRange = Literal["-1..1", "0..255", "0..1"]

FACTOR_AND_OFFSET: dict[KnownRange, tuple[float, float]] = {
    "-1..1": (2.0, -1.0),
    "0..255": (255.0, 0.0),
    "0..1": (1.0, 0.0),
}
"""From images in [0, 1], the most usual range first."""

_NUM_FACES = 12
_MIN_CONTRAST = 0.1
"""In their own range recognisers reach .55 to .65, the weak students .17 to .20, untrained networks
.03 [measured]."""
_USUAL_LEAD = 0.03
"""A graph of -1..1 may tell faces apart as well in 0..1, by .01; one of 0..1 loses .07 in -1..1
[measured on five networks, each behind every range]."""


def in_range(images: Images, pixels: KnownRange) -> Images:
    """Images in [0, 1] as values of a range."""
    factor, offset = FACTOR_AND_OFFSET[pixels]
    return images * factor + offset


def measured_range(embed: Callable[[Images], Float[Tensor, "batch dim"]], side: int) -> PixelRange:
    """The range in which a recogniser tells faces apart best.

    Compares the mean cosine between a face and the same face mirrored, shifted and of less
    contrast with the mean cosine between two faces. In a wrong range all faces look the same, or
    the same face looks another.

    Args:
        embed: Crops as values of a range to embeddings of any length.
        side: Of the crops, in pixels.

    Returns:
        The range; ``"measured"`` where faces are told apart in none.
    """
    faces = _faces(side)
    changed = (torch.roll(faces.flip(3), (side // 56, -(side // 56)), (2, 3)) - 0.5) * 0.8 + 0.45
    contrasts = {}
    for pixels in FACTOR_AND_OFFSET:
        one = functional.normalize(embed(in_range(faces, pixels)), dim=1)
        other = functional.normalize(embed(in_range(changed, pixels)), dim=1)
        cosines = one @ other.T
        same = cosines.diagonal().mean()
        strangers = cosines[~torch.eye(len(cosines), dtype=torch.bool)].mean()
        contrasts[pixels] = float(torch.nan_to_num(same - strangers))
    if max(contrasts.values()) < _MIN_CONTRAST:
        return "measured"
    contrasts["-1..1"] += _USUAL_LEAD
    return max(contrasts, key=lambda pixels: contrasts[pixels])


def _faces(side: int) -> Images:
    from skimage.data import lfw_subset

    small = torch.from_numpy(lfw_subset()[:_NUM_FACES]).float()[:, None].repeat(1, 3, 1, 1)
    faces = functional.interpolate(small, size=(side, side), mode="bicubic", antialias=True)
    return faces.clamp(0, 1)
