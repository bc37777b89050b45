"""The two losses that layer 1 raises, L_att and L_den, as gradients of latents and as numbers.

Knows a static and a dynamic surrogate and the checkpoint. Knows no photos and takes no steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dladiff.diffusion.attention_maps import AttentionMaps, AttentionReader, attention_distance
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel, Timesteps
from dladiff.diffusion.denoising_loss import (
    add_noise,
    denoising_loss,
    evaluation_pairs,
    mean_denoising_loss,
    micro_batches,
    prediction_target,
    squared_error,
)
from dladiff.diffusion.surrogates import Surrogate
from dladiff.results import Cost


@dataclass(frozen=True)
class Layer1Losses:
    """Both losses, averaged over photos and fixed pairs (t, e)."""

    attention: float
    denoising: float


class SurrogateLosses:
    """L_att and L_den between a static and a dynamic surrogate, as gradients of latents."""

    def __init__(
        self,
        static: Surrogate | None,
        dynamic: Surrogate,
        reader: AttentionReader,
        diffusion: DiffusionModel,
        cost: Cost,
    ) -> None:
        self.static = static
        self.dynamic = dynamic
        self.reader = reader
        self.diffusion = diffusion
        self.cost = cost

    def attention_gradient(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> tuple[Latents, ...]:
        """d L_att / d latents: theta_s on the clean, theta_d on the perturbed latents."""
        leaf = latents.detach().requires_grad_(True)
        loss = self.attention_loss(leaf, clean, timesteps, noise).sum()
        self.cost.unet_forward_backward_pairs += len(leaf)
        return torch.autograd.grad(loss, leaf)

    def denoising_gradient(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> tuple[Latents, ...]:
        """d L_den(theta_d) / d latents."""
        leaf = latents.detach().requires_grad_(True)
        loss = denoising_loss(self.dynamic.predict, leaf, timesteps, noise, self.diffusion).sum()
        self.cost.unet_forward_backward_pairs += len(leaf)
        return torch.autograd.grad(loss, leaf)

    def joint_gradient(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> tuple[Latents, Latents]:
        """Both of them from one forward of theta_d (option ``joint_steps``)."""
        leaf = latents.detach().requires_grad_(True)
        static_maps = self._static_maps(clean, timesteps, noise)
        noisy = add_noise(leaf, timesteps, noise, self.diffusion)
        maps, model_pred = self.reader.read(self.dynamic.predict, noisy, timesteps, False)
        assert model_pred is not None
        target = prediction_target(leaf, timesteps, noise, self.diffusion)
        attention = attention_distance(static_maps, maps).sum()
        denoising = squared_error(model_pred, target).sum()
        self.cost.unet_forward_backward_pairs += len(leaf)
        (from_maps,) = torch.autograd.grad(attention, leaf, retain_graph=True)
        (from_prediction,) = torch.autograd.grad(denoising, leaf)
        return from_maps, from_prediction

    def attention_loss(
        self, latents: Latents, clean: Latents, timesteps: Timesteps, noise: Latents
    ) -> Tensor:
        """L_att of each row; differentiable in ``latents``."""
        # Static first and without a graph: its maps are constants.
        static_maps = self._static_maps(clean, timesteps, noise)
        noisy = add_noise(latents, timesteps, noise, self.diffusion)
        maps, _ = self.reader.read(self.dynamic.predict, noisy, timesteps)
        return attention_distance(static_maps, maps)

    @torch.no_grad()
    def _static_maps(self, clean: Latents, timesteps: Timesteps, noise: Latents) -> AttentionMaps:
        assert self.static is not None, "L_att needs a static surrogate"
        noisy = add_noise(clean, timesteps, noise, self.diffusion)
        self.cost.unet_forwards += len(clean)
        return self.reader.read(self.static.predict, noisy, timesteps)[0]


def gradient_by_timestep(
    losses: SurrogateLosses, latents: Latents, num_bins: int, seed: int, micro_batch: int
) -> Tensor:
    """Mean size of the gradient of L_den in each of ``num_bins`` equal parts of the timesteps.

    After SimAC (Wang et al. 2024, arXiv:2312.07865), which attacks where the image gradient is
    large; measured at the latents, since the VAE's part is the same for all timesteps.
    """
    timesteps, noise = evaluation_pairs(len(latents), num_bins, losses.diffusion, seed)
    rows = latents.repeat_interleave(num_bins, dim=0)
    sizes = [
        losses.denoising_gradient(part, part, at, added)[0].abs().mean(dim=(1, 2, 3))
        for part, at, added in micro_batches(micro_batch, rows, timesteps, noise.to(latents))
    ]
    # The pairs of each row are stratified: one in each bin, in order.
    return torch.cat(sizes).view(len(latents), num_bins).mean(dim=0).cpu()


@torch.no_grad()
def measure_losses(
    losses: SurrogateLosses,
    latents: Latents,
    clean: Latents,
    num_pairs: int,
    seed: int,
    micro_batch: int,
) -> Layer1Losses:
    """Measures L_att and L_den at fixed pairs (t, e); comparable between calls of one seed.

    Args:
        losses: With the surrogates as they are now.
        latents: Of the perturbed (or clean) photos.
        clean: Of the clean photos, row by row.
        num_pairs: Pairs per row.
        seed: Of the pairs.
        micro_batch: Rows per forward.
    """
    diffusion = losses.diffusion
    timesteps, noise = evaluation_pairs(len(latents), num_pairs, diffusion, seed)
    latents = latents.repeat_interleave(num_pairs, dim=0)
    clean = clean.repeat_interleave(num_pairs, dim=0)
    losses.cost.unet_forwards += 2 * len(latents)
    attention = [
        losses.attention_loss(*part)
        for part in micro_batches(micro_batch, latents, clean, timesteps, noise.to(latents))
    ]
    denoising = mean_denoising_loss(
        losses.dynamic.predict, latents, timesteps, noise, diffusion, micro_batch
    )
    return Layer1Losses(float(torch.cat(attention).mean()), float(denoising))
