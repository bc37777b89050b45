"""Purification: an attacker's try to wash a perturbation out with the diffusion model itself.

Acts on the attacker's crops. Knows the checkpoint and its schedule; nothing of attacks.
"""

import torch

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.settings import HandlingName
from dladiff.image_values import Images
from dladiff.randomness import keyed_generator

PROMPT = "a photo of a person"
SDEDIT_STRENGTH = 0.3
"""Share of the noise schedule that is added and taken away again."""
SDEDIT_STEPS = 15
GRIDPURE_ROUNDS = 10
GRIDPURE_STRENGTH = 0.03
GRIDPURE_STEPS = 3
GRIDPURE_KEPT = 0.1
"""Share of each round's input that is mixed back in."""


def purify(name: HandlingName, diffusion: DiffusionModel, crops: Images, seed: int) -> Images:
    """Crops after a purification; any other handling leaves them as they are."""
    if name == "sdedit":
        return sdedit(diffusion, crops, SDEDIT_STRENGTH, SDEDIT_STEPS, seed)
    if name == "gridpure":
        return gridpure(diffusion, crops, seed)
    return crops


@torch.no_grad()
def sdedit(
    diffusion: DiffusionModel, crops: Images, strength: float, num_steps: int, seed: int
) -> Images:
    """Adds noise up to ``strength`` of the schedule and denoises again (Meng et al. 2022, SDEdit).

    Args:
        diffusion: The checkpoint at hand.
        crops: In [0, 1], of the checkpoint's size.
        strength: 0 to 1.
        num_steps: DDIM steps on the way back.
        seed: Of the noise.
    """
    latents = diffusion.encode(crops)
    return diffusion.decode(_round_trip(diffusion, latents, strength, num_steps, seed))


@torch.no_grad()
def gridpure(diffusion: DiffusionModel, crops: Images, seed: int) -> Images:
    """Many gentle rounds of noise and denoising instead of one strong one.

    After Zhao et al. 2024 (GrIDPure, arXiv:2312.00084): small steps, each mixed with its input.
    Their grid of overlapping tiles is for photos larger than the model; crops are of its size,
    so the grid is one tile. All rounds stay in the latents: they use a diffusion model of
    pixels, and ten passes through an autoencoder would wash out the person too.
    """
    latents = diffusion.encode(crops)
    for number in range(GRIDPURE_ROUNDS):
        seen = _round_trip(diffusion, latents, GRIDPURE_STRENGTH, GRIDPURE_STEPS, seed + number)
        latents = (1 - GRIDPURE_KEPT) * seen + GRIDPURE_KEPT * latents
    return diffusion.decode(latents)


def _round_trip(
    diffusion: DiffusionModel, latents: Latents, strength: float, num_steps: int, seed: int
) -> Latents:
    """Noise up to a share of the schedule, and back by DDIM."""
    last = round(strength * (len(diffusion.alphas_cumprod) - 1))
    timesteps = torch.linspace(last, 0, num_steps + 1).round().long()
    embeds = diffusion.embed_prompt(PROMPT)
    noise = torch.randn(latents.shape, generator=keyed_generator(seed, "purification"))
    latents = _noised(diffusion, latents, noise.to(latents), int(timesteps[0]))
    for now, then in zip(timesteps[:-1].tolist(), timesteps[1:].tolist(), strict=True):
        at = torch.full((len(latents),), now, device=latents.device)
        prediction = diffusion.predict(latents, at, prompt_embeds=embeds)
        latents = _ddim_step(diffusion, latents, prediction, now, then)
    return latents


def _noised(diffusion: DiffusionModel, latents: Latents, noise: Latents, timestep: int) -> Latents:
    alpha_bar = diffusion.alphas_cumprod[timestep]
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def _ddim_step(
    diffusion: DiffusionModel, latents: Latents, prediction: Latents, now: int, then: int
) -> Latents:
    """Song et al. 2021 (DDIM), eq. 12 with eta 0; at timestep 0 the clean latents themselves."""
    alpha_bar = diffusion.alphas_cumprod[now]
    signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if diffusion.prediction_type == "v_prediction":
        clean, noise = signal * latents - sigma * prediction, signal * prediction + sigma * latents
    else:
        clean, noise = (latents - sigma * prediction) / signal, prediction
    if then == 0:
        return clean
    alpha_bar = diffusion.alphas_cumprod[then]
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
