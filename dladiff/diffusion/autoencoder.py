"""The autoencoder of a latent diffusion checkpoint: images to scaled latents and back.

Knows E and D and the square at which they work. Several model families may share one; no UNet is
needed to see what it keeps of a face.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.accelerator import Precision, autocast
from dladiff.diffusion.latent_spaces import LatentSpace, latent_space
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
    """Of a class in ``latent_spaces``; diffusers takes seconds to import, and runs without layer 1
    never need it."""
    resolution: int
    face_template: FaceTemplate | None = None
    """Only of checkpoints made for aligned faces: where the landmarks lie in their crops."""
    precision: Precision = "float32"
    """On an accelerator; on the CPU lower precision is several times slower."""
    rows_per_pass: int | None = None
    """Images that fit into the device's memory with their gradients; None: any number; 0: one,
    if nothing of its encoding is saved while it is decoded."""

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
        return self.space.scale_factor(self.vae)

    @property
    def space(self) -> LatentSpace:
        """How its class of autoencoder is read."""
        return latent_space(self.vae)

    def rows(self, wanted: int) -> int:
        """Images a pass: as many as wanted, if they fit; at least one."""
        return wanted if self.rows_per_pass is None else max(1, min(wanted, self.rows_per_pass))

    @property
    def encodes_twice(self) -> bool:
        """Whether encodings are computed once more on the way back, to save memory."""
        return self.rows_per_pass == 0

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 autocast on an accelerator, if asked for."""
        return autocast(self.device, self.precision)

    def _network_precision(self) -> AbstractContextManager[None]:
        """Autocast for weights in float32; those in bfloat16 need none, and save half as much."""
        is_lowered = next(self.vae.parameters()).dtype == torch.bfloat16
        return nullcontext() if is_lowered else self.autocast()

    def encode(self, images: Images) -> Latents:
        """Encodes images in [0, 1] to scaled latents: the posterior's mean, never a sample.

        Sampling would only add noise to the gradient of the pixels.
        """
        with self._network_precision():
            latents = self.space.encode(self.vae, to_pixel_values(images))
        return latents.to(images.dtype)

    def decode(self, latents: Latents) -> Images:
        """Decodes scaled latents to images in [0, 1]."""
        with self._network_precision():
            decoded = self.space.decode(self.vae, latents)
        images: Tensor = (decoded.to(latents.dtype) / 2 + 0.5).clamp(0, 1)
        return images
