"""What the tests of layer 1 look at: tiny photos, faces drawn by hand, double precision."""

import copy
import dataclasses

import numpy as np
import torch

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.instances import NativePhoto
from dladiff.results import Face


def in_float64(diffusion: DiffusionModel) -> DiffusionModel:
    """A copy in double precision, for finite differences."""
    return dataclasses.replace(
        diffusion,
        unet=copy.deepcopy(diffusion.unet).double(),
        vae=copy.deepcopy(diffusion.vae).double(),
        prompt_embeds=diffusion.prompt_embeds.double(),
        alphas_cumprod=diffusion.alphas_cumprod.double(),
    )


def random_photo(seed: int, height: int, width: int) -> NativePhoto:
    """A smooth random photo on the 8-bit grid, with pixels at both ends of the range."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 5, generator=generator) * 1.4 - 0.2
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).round() / 255


def a_face(left: float, top: float, size: float) -> Face:
    """A face whose landmarks lie as in the ``faces128`` template, in a box of ``size``."""
    template = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.57], [0.33, 0.77], [0.67, 0.77]])
    landmarks = (template * size + np.array([left, top])).astype(np.float32)
    return Face((left, top, left + size, top + size), landmarks, 0.9)
