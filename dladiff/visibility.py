"""A change loses what the eye sees best: the bands in which it is keenest fade after each step.

Wrinkles are luminance edges of some 4 to 10 pixels, blotches are colour of the lowest frequencies.
A bound on each pixel does not tell these from texture that nobody sees; a weight per band does.
Knows perturbations and budgets; knows no face and no loss.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.image_values import Perturbation
from dladiff.transforms import gaussian_blur, rgb_from_ycbcr, ycbcr_from_rgb

_BAND_SIGMAS_PX = (0.7, 1.5, 3.0, 6.0)
"""Standard deviations of the Gaussians between the bands, fine to coarse."""
_LUMA_WEIGHTS = (0.01, 0.04, 0.10, 0.06, 0.03)
"""Share that a band of Y loses in a step at strength 1, fine to coarse [X]."""
_CHROMA_WEIGHTS = (0.02, 0.03, 0.06, 0.09, 0.10)
"""The same of Cb and Cr: the eye sees colour best where it changes slowly [X]."""
_SPARED = 1.5
"""Smooth places, whose share of the budget is small, lose more than textured ones: the decay is in
proportion to this less the share."""


def fade_visible_bands(
    perturbation: Perturbation,
    share: Float[Tensor, "1 1 height width"],
    strength: float,
) -> Perturbation:
    """Each band b of each channel of YCbCr times ``1 - strength * w_b * (1.5 - share)``.

    The gradient step of a quadratic penalty on what is seen, so that steps and decay settle where
    a further change costs the eye as much as it is worth [X].

    Args:
        perturbation: On the [0, 1] scale.
        share: Of the whole budget that each pixel may use, in [0, 1].
        strength: 0 leaves the perturbation as it is.

    Returns:
        A perturbation of the same shape; project it again, as colours mix.
    """
    remaining, faded = ycbcr_from_rgb(perturbation), torch.zeros_like(perturbation)
    weights = torch.tensor([_LUMA_WEIGHTS, _CHROMA_WEIGHTS, _CHROMA_WEIGHTS]).to(perturbation)
    for band, sigma in enumerate((*_BAND_SIGMAS_PX, None)):
        smoother = torch.zeros_like(remaining) if sigma is None else gaussian_blur(remaining, sigma)
        loss = strength * weights[:, band].view(1, 3, 1, 1) * (_SPARED - share)
        faded = faded + (remaining - smoother) * (1 - loss.clamp(max=1))
        remaining = smoother
    return rgb_from_ycbcr(faded)
