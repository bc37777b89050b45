"""SimAC: ASPL where the image gradient is large, and against hidden features of the UNet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import Timesteps
from dladiff.diffusion.denoising_loss import add_noise, denoising_loss
from dladiff.methods.image_gradients import LatentGradient
from dladiff.methods.others.surrogates import Aspl
from dladiff.methods.surrogate_losses import gradient_by_timestep

NUM_TIMESTEP_BINS = 10
"""SimAC narrows 1,000 timesteps down to 100."""


class Simac(Aspl):
    """ASPL at the timesteps where the image gradient is large, and against hidden features.

    Wang et al. 2024, "SimAC" (arXiv:2312.07865): timesteps are taken from the interval of 100
    that moves the image most (there found greedily per photo, here once per person on the clean
    photos); L_den plus the distance of late features of the UNet's decoder between clean and
    perturbed photos. Here the two gradients count alike, each at unit length.
    """

    num_features = 3
    """Blocks of the decoder that are read, from the end."""

    def prepare(self) -> None:
        person, settings = self.person, self.person.settings
        sizes = gradient_by_timestep(
            self.losses(self.surrogate),
            person.clean_latents,
            NUM_TIMESTEP_BINS,
            settings.seed,
            settings.micro_batch,
        )
        self.timestep_weights = (sizes == sizes.max()).to(sizes)
        self.looks = replace(self.looks, timestep_choice="gradient")

    def latent_gradient(self, step: int) -> LatentGradient:
        return self._joint_gradient

    def _joint_gradient(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> tuple[Latents, Latents]:
        """The gradients of L_den and of the distance of features, from one forward."""
        diffusion = self.person.diffusion
        leaf = latents.detach().requires_grad_(True)
        with torch.no_grad(), recorded(self._late_blocks()) as of_clean:
            self.surrogate.predict(add_noise(clean, timesteps, noise, diffusion), timesteps)
        with recorded(self._late_blocks()) as of_perturbed:
            loss = denoising_loss(self.surrogate.predict, leaf, timesteps, noise, diffusion).sum()
        pairs = zip(of_perturbed, of_clean, strict=True)
        distance = torch.stack([(ours - clean).square().mean() for ours, clean in pairs]).sum()
        self.person.cost.unet_forwards += len(leaf)
        self.person.cost.unet_forward_backward_pairs += len(leaf)
        (from_loss,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        (from_features,) = torch.autograd.grad(distance, leaf)
        return from_loss, from_features

    def _late_blocks(self) -> list[nn.Module]:
        blocks = [block for up in self.person.diffusion.unet.up_blocks for block in up.resnets]
        return blocks[-self.num_features :]


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What modules put out while the context lasts, in the order in which they run."""
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for module in modules
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
