"""A change loses what the eye sees best: the bands in which it is keenest fade after each step.

Wrinkles are luminance edges of some 4 to 10 pixels, blotches are colour of the lowest frequencies.
A bound on each pixel does not tell these from texture that nobody sees; a weight per band does.
Knows perturbations and budgets; knows no face and no loss.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dladiff.image_values import Perturbation
from dladiff.transforms import gaussian_blur, rgb_from_ycbcr, ycbcr_from_rgb

_BAND_SIGMAS_PX = (0.7, 1.5, 3.0, 6.0)
"""Standard deviations of the Gaussians between the bands, fine to coarse."""
_LUMA_WEIGHTS = (0.01, 0.04, 0.10, 0.06, 0.03)
"""Share that a band of Y loses in a step at strength 1, fine to coarse [X]."""
_CHROMA_WEIGHTS = (0.3, 0.45, 0.9, 1.35, 1.5)
"""The same of Cb and Cr: the eye sees colour best where it changes slowly; more than the measure
says, which is blind to green eyes, reddened skin and specks in hair [X, looked at]. A third of it
protects more and shows tints (docs/archive/tried.md)."""
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
    weights = torch.tensor([_LUMA_WEIGHTS, _CHROMA_WEIGHTS, _CHROMA_WEIGHTS]).to(perturbation)
    loss = strength * weights.T.reshape(-1, 1, 3, 1, 1) * (_SPARED - share)
    return _of_bands(_bands(perturbation) * (1 - loss.clamp(max=1)))


def band_allowances(
    perturbation: Perturbation, restraint: Perturbation
) -> Float[Tensor, "bands 1 3 1 1"]:
    """How much change of each band costs the eye equally, of geometric mean 1.

    What is seen grows about as a weighted sum of squares of bands. Its gradient, the restraint, is
    in each band the change times the weight; so their ratio is the weight's inverse, measured on
    this very face [X].

    Args:
        perturbation: On the [0, 1] scale.
        restraint: Gradient of what is seen, on any scale; 0 where nothing is looked at.
    """
    is_seen = restraint.abs().amax(dim=1, keepdim=True) > 0
    sizes = [
        (_bands(values) * is_seen).square().sum(dim=(1, 3, 4), keepdim=True).sqrt()
        for values in (perturbation, restraint)
    ]
    ratios = (sizes[0].clamp_min(1e-12) / sizes[1].clamp_min(1e-12)).log()
    return (ratios - ratios.mean()).exp()


def weigh_bands(
    step: Perturbation,
    allowances: Float[Tensor, "bands 1 3 1 1"],
    is_seen: Bool[Tensor, "1 1 height width"],
) -> Perturbation:
    """A step whose bands are weighted, as large on average as before; elsewhere as it is."""
    weighted = _of_bands(_bands(step) * allowances)
    scale = (step.abs() * is_seen).sum() / (weighted.abs() * is_seen).sum().clamp_min(1e-30)
    return torch.where(is_seen, weighted * scale, step)


def _bands(values: Perturbation) -> Float[Tensor, "bands 1 3 height width"]:
    """Y, Cb and Cr in bands, fine to coarse, whose sum is the whole."""
    remaining, bands = ycbcr_from_rgb(values), []
    for sigma in _BAND_SIGMAS_PX:
        smoother = gaussian_blur(remaining, sigma)
        bands.append(remaining - smoother)
        remaining = smoother
    return torch.stack([*bands, remaining])


def _of_bands(bands: Float[Tensor, "bands 1 3 height width"]) -> Perturbation:
    """The inverse of ``_bands``."""
    return rgb_from_ycbcr(bands.sum(dim=0))
