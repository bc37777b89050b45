"""Where in a photo how much may change: both layers' budgets, and less where it would be seen.

Knows pixels and faces. Never grants more than the stated levels.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.image_values import Images, levels_to_unit
from dladiff.projected_gradient import Budget
from dladiff.transforms import gaussian_blur

_LUMA = (0.299, 0.587, 0.114)
FULL_CONTRAST_LEVELS = 12.0
"""Local contrast (standard deviation, 8-bit levels) from which the whole budget is used."""
_SURROUNDINGS_PX = 2.0
"""Standard deviation of the window in which contrast and luminance are local."""


def budget_map(
    images: Images,
    surroundings_levels: float,
    face_levels: float,
    face_masks: Iterable[Float[Tensor, "1 1 height width"]],
    floor_share: float,
) -> Budget:
    """Epsilon of each pixel: one budget around faces, another inside their masks.

    Args:
        images: One clean photo on its grid.
        surroundings_levels: Outside face masks, in 8-bit levels.
        face_levels: Where a mask is 1, in 8-bit levels; between, the mask interpolates.
        face_masks: Weights in [0, 1], falling softly to 0; where they overlap the largest counts.
        floor_share: Of the budget, on smooth and bright places.
    """
    budget = torch.full_like(images[:, :1], levels_to_unit(surroundings_levels))
    mask = None
    for each in face_masks:  # one at a time: those of a group do not fit into memory together
        mask = each if mask is None else torch.maximum(mask, each)
    if mask is not None:
        budget = budget + levels_to_unit(face_levels - surroundings_levels) * mask.to(budget)
    return budget * masking_share(images, floor_share)


def masking_share(images: Images, floor_share: float) -> Float[Tensor, "1 1 height width"]:
    """Share of the budget that each pixel may use: 1 in texture, ``floor_share`` on smooth skin.

    The eye's threshold rises with the contrast around (contrast masking, Legge and Foley 1980)
    and in the dark (luminance adaptation, Chou and Li 1995, eq. 3: 3 levels at mid-grey, 20 at
    black). The larger of the two counts, on a scale of ``FULL_CONTRAST_LEVELS``.
    """
    weights = torch.tensor(_LUMA).to(images).view(1, 3, 1, 1)
    luma = (images * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    around = gaussian_blur(luma, _SURROUNDINGS_PX)
    variance = gaussian_blur((luma - around).square(), _SURROUNDINGS_PX)
    contrast = variance[:, :1].clamp_min(0).sqrt() * 255 / FULL_CONTRAST_LEVELS
    darkness = 1 - (around[:, :1] * 255 / 127).clamp(0, 1).sqrt()
    share = torch.maximum(contrast, darkness).clamp(0, 1)
    return floor_share + (1 - floor_share) * share
