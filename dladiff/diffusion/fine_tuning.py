"""Few-step fine-tuning of a surrogate on cached latents of one person.

Knows an optimiser and the denoising loss under the instance prompt; no prior term, the UNet
only. Knows neither photos nor perturbations: latents come in, weights change.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dladiff.config import SurrogateSettings
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel, Timesteps
from dladiff.diffusion.denoising_loss import (
    denoising_loss,
    draw_noise,
    draw_timesteps,
    micro_batches,
)
from dladiff.diffusion.surrogates import Surrogate
from dladiff.results import Cost

WEIGHT_DECAY, MAX_GRAD_NORM = 1e-2, 1.0
LORA_LEARNING_RATE = 1e-4
FULL_LEARNING_RATE = 5e-6
"""[X] Of a checkpoint of Stable Diffusion's size, unless one is stored beside the checkpoint."""


class FineTuner:
    """Continues fine-tuning one surrogate; keeps the optimiser's moments between calls."""

    def __init__(
        self,
        surrogate: Surrogate,
        diffusion: DiffusionModel,
        settings: SurrogateSettings,
        cost: Cost | None = None,
    ) -> None:
        self.surrogate = surrogate
        self.diffusion = diffusion
        self.settings = settings
        self.cost = Cost() if cost is None else cost
        self.optimizer = self._fresh_optimizer()

    def reset(self) -> None:
        """Returns the surrogate to the checkpoint, and the optimiser to its start."""
        self.surrogate.reset()
        self.optimizer = self._fresh_optimizer()

    def train(
        self, latents: Latents, num_steps: int, generator: torch.Generator
    ) -> Float[Tensor, " steps"]:
        """Takes optimiser steps that lower L_den on latents, AdamW with clipped gradients.

        Args:
            latents: Clean or perturbed, encoded once; each step draws a batch of their rows
                without repetition, new timesteps and new noise.
            num_steps: How many.
            generator: On the CPU.

        Returns:
            The loss of each step, detached and still on the device.
        """
        device = latents.device
        losses = []
        with self.surrogate.trainable() as weights:
            for _ in range(num_steps):
                rows = torch.randperm(len(latents), generator=generator)
                batch = latents[rows[: self.settings.batch_size].to(device)]
                timesteps = draw_timesteps(len(batch), generator).to(device)
                noise = draw_noise(len(batch), self.diffusion, generator).to(batch)
                loss = self._add_gradients(weights, batch, timesteps, noise)
                nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM, foreach=True)
                self.optimizer.step()
                losses.append(loss)
                self.cost.unet_forward_backward_pairs += len(batch)
        return torch.stack(losses) if losses else latents.new_zeros(0)

    def _add_gradients(
        self, weights: list[Tensor], batch: Latents, timesteps: Timesteps, noise: Latents
    ) -> Float[Tensor, ""]:
        """Gives each weight the gradient of the batch's mean loss, as many rows a pass as fit."""
        rows, total = self.diffusion.unet_rows(len(batch)), batch.new_zeros(())
        for weight in weights:
            weight.grad = None
        for part, at, added in micro_batches(rows, batch, timesteps, noise):
            losses = denoising_loss(self.surrogate.predict, part, at, added, self.diffusion)
            loss = losses.mean() * (len(part) / len(batch))
            gradients = torch.autograd.grad(loss, weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
            total += loss.detach()
        return total

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.surrogate.weights(),
            lr=learning_rate(self.settings, self.diffusion),
            weight_decay=WEIGHT_DECAY,
        )


def learning_rate(settings: SurrogateSettings, diffusion: DiffusionModel) -> float:
    """The configured rate, else the checkpoint's own calibration, else Stable Diffusion's."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    if (calibrated := diffusion.learning_rates.get(settings.adaptation)) is not None:
        return calibrated
    return LORA_LEARNING_RATE if settings.adaptation == "lora" else FULL_LEARNING_RATE
