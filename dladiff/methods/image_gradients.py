"""Gradients of a loss of latents with respect to the perturbation of each photo.

Knows views, handling and the VAE; does not know which loss, and takes no steps. Weights are
frozen throughout: gradients flow to the perturbations and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel, Timesteps
from dladiff.diffusion.denoising_loss import draw_noise, draw_timesteps, micro_batches
from dladiff.methods.photo_latents import Looks, ViewedPhoto
from dladiff.photo_at_work import NativePhoto
from dladiff.randomness import keyed_generator
from dladiff.results import Cost
from dladiff.transforms import PhotometricTransform, draw_photometric

LatentGradient = Callable[[Latents, Latents, Timesteps, Latents], tuple[Latents, ...]]
"""(perturbed latents, clean latents, timesteps, noise) to the gradient of one or two losses with
respect to the perturbed latents; rows do not influence each other."""


@dataclass(frozen=True, eq=False)
class StepDraw:
    """What one step of one photo looks through: a view, handling, and T pairs (t, e)."""

    view_index: int
    handling: PhotometricTransform
    timesteps: Timesteps
    noise: Latents


def draw_step(
    instance: ViewedPhoto,
    looks: Looks,
    diffusion: DiffusionModel,
    seed: int,
    step: int,
    timestep_weights: Tensor | None = None,
) -> StepDraw:
    """Draws a step of one photo; the same whatever else is in the set or the batch."""
    generator = keyed_generator(seed, instance.photo.key, "layer1", step)
    num_views = len(instance.views)
    # Each round visits every view once, in an order of its own.
    order_of_round = keyed_generator(seed, instance.photo.key, "views", step // num_views)
    order = torch.randperm(num_views, generator=order_of_round)
    handling = draw_photometric(looks.handling, generator)
    count = looks.timesteps_per_step
    timesteps = draw_timesteps(count, generator, looks.timestep_choice, timestep_weights)
    noise = draw_noise(count, diffusion, generator)
    return StepDraw(int(order[step % num_views]), handling, timesteps, noise)


def perturbation_gradients(
    instances: Sequence[ViewedPhoto],
    draws: Sequence[StepDraw],
    latent_gradient: LatentGradient,
    diffusion: DiffusionModel,
    micro_batch: int,
    cost: Cost,
) -> list[NativePhoto]:
    """Gradients of a loss with respect to the perturbation of each photo.

    The latent gradients of a photo's T timesteps are added up before a single backward pass of
    the VAE, which is more than half of a step's work.

    Args:
        instances: The photos, each with its own perturbation and size.
        draws: One per photo.
        latent_gradient: The loss, as a gradient of latents; two losses are brought to unit
            norm per photo and added.
        diffusion: Whose VAE encodes.
        micro_batch: Images per forward pass of the VAE or the UNet.
        cost: Where passes are counted.
    """
    gradients: list[NativePhoto] = []
    size = diffusion.rows(micro_batch)
    for start in range(0, len(instances), size):
        chunk = slice(start, start + size)
        leaves = [instance.photo.ascent.leaf() for instance in instances[chunk]]
        seen = [
            instance.views[draw.view_index].look(
                draw.handling.apply(instance.photo.base + leaf), diffusion.resolution
            )
            for instance, draw, leaf in zip(instances[chunk], draws[chunk], leaves, strict=True)
        ]
        latents = diffusion.encode(torch.cat(seen))
        cost.vae_passes += len(seen)
        clean = torch.stack(
            [
                instance.clean_latents[draw.view_index]
                for instance, draw in zip(instances[chunk], draws[chunk], strict=True)
            ]
        )
        upstream = _sum_over_timesteps(
            latents.detach(),
            clean,
            draws[chunk],
            latent_gradient,
            diffusion.unet_rows(micro_batch),
        )
        gradients += torch.autograd.grad(latents, leaves, upstream)
    return gradients


def _sum_over_timesteps(
    latents: Latents,
    clean: Latents,
    draws: Sequence[StepDraw],
    latent_gradient: LatentGradient,
    micro_batch: int,
) -> Latents:
    """Adds up the latent gradients of each photo's T timesteps, in micro-batches of rows."""
    count = len(draws[0].timesteps)
    timesteps = torch.cat([draw.timesteps for draw in draws]).to(latents.device)
    noise = torch.cat([draw.noise for draw in draws]).to(latents)
    rows = [
        latent_gradient(*part)
        for part in micro_batches(
            micro_batch,
            latents.repeat_interleave(count, dim=0),
            clean.repeat_interleave(count, dim=0),
            timesteps,
            noise,
        )
    ]
    losses = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    sums = [loss.view(len(draws), count, *loss.shape[1:]).sum(dim=1) for loss in losses]
    if len(sums) == 1:
        return sums[0]
    norms = [total.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for total in sums]
    normalised = [total / (norm + 1e-30) for total, norm in zip(sums, norms, strict=True)]
    return torch.stack(normalised).sum(dim=0)
