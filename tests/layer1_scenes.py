"""What the tests of layer 1 look at: tiny photos, faces drawn by hand, double precision."""

import copy
import dataclasses

import numpy as np
import torch

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.photo_at_work import NativePhoto
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


class TinyEncoder(torch.nn.Module):
    """An encoder of crops of 112 px, smooth and seeded: finite differences need no kinks."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.look = torch.nn.Conv2d(3, 6, 8, stride=8)
            self.say = torch.nn.Linear(6 * 14 * 14, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.say(torch.tanh(self.look(images)).flatten(1))
        return said
