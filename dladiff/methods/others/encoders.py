"""Baselines that look at what the encoder makes of a photo: PhotoGuard and Mist.

Latents are pushed towards those of a target image, or away from the clean ones.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import Timesteps
from dladiff.image_values import Images
from dladiff.methods.image_gradients import LatentGradient
from dladiff.methods.others.baseline import LatentBaseline
from dladiff.methods.others.person import Person
from dladiff.methods.others.surrogates import AdvDm

STRIPES_PER_SIDE = 16


class PhotoGuard(LatentBaseline):
    """The encoder attack: latents towards those of a grey image.

    Salman et al. 2023, "Raising the Cost of Malicious AI-Powered Image Editing"
    (arXiv:2302.06588), section 3.1: ``min_delta ||E(x + delta) - E(target)||^2``.
    """

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.target = target_latents(person, grey_image)

    def latent_gradient(self, step: int) -> LatentGradient:
        return lambda latents, clean, timesteps, noise: (towards(latents, self.target),)


class Mist(AdvDm):
    """L_den of the checkpoint and latents towards those of a target image, together.

    Liang and Wu 2023, "Mist" (arXiv:2305.12683), fused mode: the semantic loss, L_den, is raised
    and the textural loss, the distance to a striped target's latents, is lowered. The paper
    weighs them by a constant that depends on the checkpoint's scale; here the two gradients
    count alike, each at unit length per photo.
    """

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.target = target_latents(person, striped_image)

    def latent_gradient(self, step: int) -> LatentGradient:
        return self._fused_gradient

    def _fused_gradient(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> tuple[Latents, Latents]:
        semantic = self.losses(self.surrogate).denoising_gradient
        (from_loss,) = semantic(latents, clean, timesteps, noise)
        return from_loss, self.textural_gradient(latents, clean)

    def textural_gradient(self, latents: Latents, clean: Latents) -> Latents:
        """The gradient of minus the squared distance to the target's latents."""
        return towards(latents, self.target)


class MistUntargeted(Mist):
    """The same without a target: latents away from the clean ones."""

    def textural_gradient(self, latents: Latents, clean: Latents) -> Latents:
        return -towards(latents, clean)


def towards(
    latents: Latents, target: Float[Tensor, "rows channels latent_height latent_width"]
) -> Latents:
    """The gradient of ``-||z - z_target||^2``; one target for all rows, or one for each."""
    return -2 * (latents - target)


@torch.no_grad()
def target_latents(person: Person, draw: Callable[[int], Images]) -> Latents:
    """E of a target image, one row; counted."""
    diffusion = person.diffusion
    person.cost.vae_passes += 1
    latents: Tensor = diffusion.encode(draw(diffusion.resolution).to(diffusion.device))
    return latents


def grey_image(side: int) -> Images:
    """PhotoGuard's target."""
    return torch.full((1, 3, side, side), 0.5)


def striped_image(side: int) -> Images:
    """Black and white bands on the diagonal: much contrast, as Mist's target has it."""
    positions = torch.arange(side)
    band = (positions[:, None] + positions[None, :]) * STRIPES_PER_SIDE // side % 2
    return band.to(torch.float32).expand(1, 3, side, side).clone()
