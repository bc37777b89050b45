"""The denoising loss of a latent diffusion model at given timesteps and noise.

Knows the forward process and the target of a prediction. Draws nothing itself except where a
function's name says so; knows no photos and no adapters.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel, Timesteps
from dladiff.randomness import keyed_generator

Predict = Callable[[Latents, Timesteps], Latents]
"""A surrogate: noisy latents and timesteps to its prediction of the target."""

LAST_TIMESTEP = 999
"""Timesteps are drawn from 1 ... 999 (section 3 of the paper)."""


def add_noise(
    latents: Latents, timesteps: Timesteps, noise: Latents, diffusion: DiffusionModel
) -> Latents:
    """q(z, t, e) = sqrt(abar_t) z + sqrt(1 - abar_t) e."""
    signal, sigma = _signal_and_noise_scale(timesteps, diffusion)
    return signal * latents + sigma * noise


def prediction_target(
    latents: Latents, timesteps: Timesteps, noise: Latents, diffusion: DiffusionModel
) -> Latents:
    """What the UNet is trained to say: e, or the velocity sqrt(abar_t) e - sqrt(1 - abar_t) z."""
    if diffusion.prediction_type == "epsilon":
        return noise
    signal, sigma = _signal_and_noise_scale(timesteps, diffusion)
    return signal * noise - sigma * latents


def denoising_loss(
    predict: Predict,
    latents: Latents,
    timesteps: Timesteps,
    noise: Latents,
    diffusion: DiffusionModel,
) -> Float[Tensor, " batch"]:
    """L_den of each row: mean squared error of the prediction at its (t, e).

    With velocity prediction the target itself depends on the latents; the gradient of the
    latents passes through both.
    """
    noisy_latents = add_noise(latents, timesteps, noise, diffusion)
    target = prediction_target(latents, timesteps, noise, diffusion)
    return squared_error(predict(noisy_latents, timesteps), target)


def squared_error(model_pred: Latents, target: Latents) -> Float[Tensor, " batch"]:
    """Mean squared error of each row."""
    return (model_pred - target).square().mean(dim=(1, 2, 3))


def draw_timesteps(
    count: int,
    generator: torch.Generator,
    choice: str = "stratified",
    weights: Float[Tensor, " bins"] | None = None,
) -> Timesteps:
    """Draws timesteps of 1 ... 999.

    Args:
        count: How many.
        generator: On the CPU.
        choice: ``uniform`` [P]; ``stratified``: one of each of ``count`` equal parts of the
            range [X]; ``gradient``: bins of equal width in proportion to ``weights``.
        weights: Mean image gradient of each bin, for ``gradient`` only.
    """
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    if choice == "stratified":
        uniform = (torch.arange(count) + uniform) / count
    elif choice == "gradient":
        if weights is None:
            raise ValueError("timestep choice 'gradient' needs the weights of its bins")
        bins = torch.multinomial(weights.double(), count, replacement=True, generator=generator)
        uniform = (bins + uniform) / len(weights)
    # A double just below 1 may round up at a part's end: clamp instead of losing a timestep.
    return (1 + (uniform * LAST_TIMESTEP).long()).clamp(max=LAST_TIMESTEP)


def draw_noise(count: int, diffusion: DiffusionModel, generator: torch.Generator) -> Latents:
    """Draws standard normal noise of the latents' shape, on the CPU."""
    side = diffusion.resolution // diffusion.vae_scale_factor
    channels = diffusion.unet.config.in_channels
    return torch.randn(count, channels, side, side, generator=generator)


def draw_pairs(
    count: int, diffusion: DiffusionModel, generator: torch.Generator
) -> tuple[Timesteps, Latents]:
    """A fixed grid of (t, e): timesteps spread over the whole range, noise of the generator."""
    timesteps = draw_timesteps(count, generator, "stratified")
    return timesteps, draw_noise(count, diffusion, generator)


def micro_batches(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cuts tensors of equal length into parts of at most ``rows`` rows, side by side."""
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _signal_and_noise_scale(
    timesteps: Timesteps, diffusion: DiffusionModel
) -> tuple[Float[Tensor, "batch 1 1 1"], Float[Tensor, "batch 1 1 1"]]:
    alpha_bar = diffusion.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def evaluation_pairs(
    num_latents: int, num_pairs: int, diffusion: DiffusionModel, seed: int
) -> tuple[Timesteps, Latents]:
    """The fixed grid of (t, e): ``num_pairs`` rows for each latent, timesteps spread evenly."""
    generator = keyed_generator(seed, "evaluation pairs")
    parts = [draw_pairs(num_pairs, diffusion, generator) for _ in range(num_latents)]
    timesteps = torch.cat([part[0] for part in parts]).to(diffusion.device)
    return timesteps, torch.cat([part[1] for part in parts]).to(diffusion.device)


@torch.no_grad()
def mean_denoising_loss(
    predict: Predict,
    latents: Latents,
    timesteps: Timesteps,
    noise: Latents,
    diffusion: DiffusionModel,
    micro_batch: int,
) -> Float[Tensor, ""]:
    """L_den averaged over rows, without a graph."""
    losses = [
        denoising_loss(predict, rows, at, added, diffusion)
        for rows, at, added in micro_batches(micro_batch, latents, timesteps, noise.to(latents))
    ]
    return torch.cat(losses).mean()
