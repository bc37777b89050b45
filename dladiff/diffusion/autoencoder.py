"""The autoencoder of a latent diffusion checkpoint: images to scaled latents and back.

Knows E and D and the square at which they work. Several model families may share one; no UNet is
needed to see what it keeps of a face.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.image_values import Images, to_pixel_values

Latents = Float[Tensor, "batch channels latent_height latent_width"]
"""Scaled latents, clean or noisy; also predictions of a UNet and their targets."""
FaceTemplate = Float[Tensor, "5 2"]
"""Where five landmarks lie in a crop, (x, y) as fractions of its side."""
PORTRAIT_TEMPLATE: FaceTemplate = torch.tensor(
    [[0.40, 0.42], [0.60, 0.42], [0.50, 0.53], [0.42, 0.63], [0.58, 0.63]]
)
"""Where an aligned view puts the landmarks for a checkpoint without a template of its own: a
portrait with head and shoulders, as people crop them for fine-tuning."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Autoencoder:
    """A frozen E and D; sides of images are ``resolution``, in multiples of the scale factor."""

    vae: Any = field(repr=False)
    """``AutoencoderKL`` or ``AutoencoderTiny``; diffusers takes seconds to import, and runs without
    layer 1 never need it."""
    resolution: int
    face_template: FaceTemplate | None = None
    """Only of checkpoints made for aligned faces: where the landmarks lie in their crops."""
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.vae.parameters()).device
        return device

    @property
    def aligned_template(self) -> FaceTemplate:
        """Where aligned views put the landmarks: as the checkpoint has it, else as in portraits."""
        return PORTRAIT_TEMPLATE if self.face_template is None else self.face_template

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of an image per cell of its latents, along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 autocast on CUDA if asked for; on the CPU it is several times slower."""
        if self.precision == "bfloat16" and self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def encode(self, images: Images) -> Latents:
        """Encodes images in [0, 1] to scaled latents: the posterior's mean, never a sample.

        Sampling would only add noise to the gradient of the pixels.
        """
        with self.autocast():
            encoded = self.vae.encode(to_pixel_values(images))
        # AutoencoderTiny has no posterior; its output is the latent itself.
        mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        shift = self.vae.config.get("shift_factor") or 0.0
        latents: Tensor = (mean.to(images.dtype) - shift) * self.vae.config.scaling_factor
        return latents

    def decode(self, latents: Latents) -> Images:
        """Decodes scaled latents to images in [0, 1]."""
        shift = self.vae.config.get("shift_factor") or 0.0
        with self.autocast():
            decoded = self.vae.decode(latents / self.vae.config.scaling_factor + shift).sample
        images: Tensor = (decoded.to(latents.dtype) / 2 + 0.5).clamp(0, 1)
        return images
