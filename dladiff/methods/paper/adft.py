"""Layer 1: dual surrogates (DSUR) and alternating dynamic fine-tuning (ADFT).

Section 3 of the paper (arXiv:2511.19910). Knows the photos of one person and a checkpoint; knows
no faces' identity and nothing of layer 2 beyond a fixed perturbation that it may have to bear.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from dladiff.ascent_loop import Step, ascend
from dladiff.config import MethodSettings
from dladiff.diffusion.attention_maps import AttentionReader, attention_layers
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.fine_tuning import FineTuner
from dladiff.diffusion.surrogates import Surrogate, open_surrogates
from dladiff.image_values import levels_to_unit
from dladiff.methods.image_gradients import LatentGradient, draw_step, perturbation_gradients
from dladiff.methods.photo_latents import Looks, PhotoEncoder
from dladiff.methods.surrogate_losses import (
    Layer1Losses,
    SurrogateLosses,
    gradient_by_timestep,
    measure_losses,
)
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.randomness import derive_seed, keyed_generator
from dladiff.results import Cost
from dladiff.stopwatch import timed

JOINT_MOMENTUM = 0.9
NUM_TIMESTEP_BINS = 10
"""Bins of the timestep choice ``gradient``."""
NUM_EVAL_PAIRS = 16
"""Fixed (timestep, noise) pairs per photo at which losses are measured before and after."""

OnProgress = Callable[[str, float], None]
"""Called between steps with a stage name and the fraction done."""


@dataclass(frozen=True)
class Layer1Metrics:
    """What layer 1 reached, on the photos as an attacker would see them."""

    losses_before: Layer1Losses
    """Losses of the final surrogates on the clean photos."""
    losses_after: Layer1Losses
    """Losses of the same surrogates at the same (t, e) on the perturbed photos."""


@contextmanager
def open_finetuning_defense(
    photos: Sequence[PhotoAtWork],
    references: Sequence[PhotoAtWork],
    diffusion: DiffusionModel,
    method: MethodSettings,
    cost: Cost | None = None,
) -> Iterator["FinetuningDefense"]:
    """Holds the surrogates of one person for as long as layer 2's interplay may need them."""
    seed = derive_seed(method.seed, "layer1", *[photo.key for photo in photos])
    with open_surrogates(diffusion, method.surrogates, ("static", "dynamic"), seed) as surrogates:
        yield FinetuningDefense(
            photos, references, diffusion, surrogates, method, seed, cost or Cost()
        )


@dataclass(frozen=True)
class AdftSchedule:
    """Steps of an epoch after the ablation switches, at equal signed steps."""

    attention_steps: int
    denoising_steps: int
    surrogate_steps: int

    @classmethod
    def of(cls, method: MethodSettings) -> "AdftSchedule":
        """No DSUR: K1's steps go to K2. No ADFT: K3 = 0, theta_d stays theta_pre."""
        steps, layers = method.surrogates, method.layers
        k1, k2 = steps.attention_steps, steps.denoising_steps
        if not layers.dual_surrogates:
            k1, k2 = 0, k1 + k2
        return cls(k1, k2, steps.surrogate_steps if layers.dynamic_fine_tuning else 0)


@dataclass
class FinetuningDefense:
    """Layer 1 at work on one person; use through ``open_finetuning_defense``."""

    photos: Sequence[PhotoAtWork]
    references: Sequence[PhotoAtWork]
    diffusion: DiffusionModel
    surrogates: dict[str, Surrogate]
    method: MethodSettings
    seed: int
    """The seed of this set's draws."""
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        method, diffusion = self.method, self.diffusion
        unet, side = diffusion.unet, diffusion.resolution // diffusion.vae_scale_factor
        layers = attention_layers(unet, side, method.layers.include_largest_maps)
        self.dynamic_tuner = FineTuner(
            self.surrogates["dynamic"], diffusion, method.surrogates, self.cost
        )
        self.losses = SurrogateLosses(
            static=self.surrogates["static"],
            dynamic=self.surrogates["dynamic"],
            reader=AttentionReader(unet, layers, method.layers.drop_bos),
            diffusion=diffusion,
            cost=self.cost,
        )
        self.looks, self.micro_batch = Looks.of(method), method.micro_batch
        self.encoder = PhotoEncoder(diffusion, self.looks, self.seed, self.micro_batch, self.cost)
        levels = method.budget.fine_tuning_levels
        # Where theta_s = theta_d, L_att has no gradient at delta = 0: start one step off it.
        start = min(method.surrogates.step_size_levels, levels)
        self.instances = [
            self.encoder.begin(photo, levels_to_unit(levels), start) for photo in self.photos
        ]
        self.epoch = self.step = 0
        self.timestep_weights: torch.Tensor | None = None

    def run(self, on_progress: OnProgress | None = None) -> Layer1Metrics:
        """Step 0, then all ADFT epochs."""
        report = on_progress or (lambda stage, fraction: None)
        num_epochs = self.method.surrogates.num_epochs
        with timed(self.cost, "step0", self.diffusion.device):
            self.train_static_surrogate()
            self._weigh_timesteps()
        for epoch in range(1, num_epochs + 1):
            with timed(self.cost, "layer1", self.diffusion.device):
                self.alternate()
            report("layer1", epoch / num_epochs)
        return Layer1Metrics(
            losses_before=self.measure(perturbed=False),
            losses_after=self.measure(perturbed=True),
        )

    def alternate(self, train: bool = True) -> None:
        """One ADFT epoch: raise L_att, raise L_den(theta_d), lower L_den(theta_d) by training.

        Args:
            train: False leaves theta_d as it is, so that losses stay comparable.

        Raises:
            GradientError: If a photo's gradient was zero or not finite in any of the steps.
        """
        self.epoch += 1
        ascend(self.photos, self._epoch(train), f"layer 1, epoch {self.epoch}")

    def _epoch(self, train: bool) -> Iterator[Step[PhotoAtWork]]:
        """The signed steps of an epoch; theta_d is reset before and trained after them."""
        layers, schedule = self.method.layers, AdftSchedule.of(self.method)
        reset = layers.dynamic_reset_epochs
        if train and reset is not None and self.epoch > 1 and (self.epoch - 1) % reset == 0:
            self.dynamic_tuner.reset()
        if layers.joint_steps:
            # Without DSUR there are no static maps: momentum stays, so that ablations compare.
            dual = layers.dual_surrogates
            gradient = self.losses.joint_gradient if dual else self.losses.denoising_gradient
            for _ in range(schedule.attention_steps + schedule.denoising_steps):
                yield self.up(gradient, JOINT_MOMENTUM)
        else:
            for _ in range(schedule.attention_steps):
                yield self.up(self.losses.attention_gradient)
            for _ in range(schedule.denoising_steps):
                yield self.up(self.losses.denoising_gradient)
        if train and schedule.surrogate_steps:
            generator = keyed_generator(self.seed, "dynamic", self.epoch)
            latents = self.encoder.one_view_each(self.instances, self.epoch)
            self.dynamic_tuner.train(latents, schedule.surrogate_steps, generator)

    def up(self, latent_gradient: LatentGradient, momentum: float = 0.0) -> Step[PhotoAtWork]:
        """One signed step of every photo that raises a loss, within eta_ft around x."""
        loss = partial(self._gradients, latent_gradient)
        return Step(loss, self.method.surrogates.step_size_levels, momentum)

    def _gradients(
        self, latent_gradient: LatentGradient, photos: Sequence[PhotoAtWork]
    ) -> list[NativePhoto]:
        draws = [
            draw_step(
                instance, self.looks, self.diffusion, self.seed, self.step, self.timestep_weights
            )
            for instance in self.instances
        ]
        self.step += 1
        return perturbation_gradients(
            self.instances, draws, latent_gradient, self.diffusion, self.micro_batch, self.cost
        )

    def measure(self, perturbed: bool) -> Layer1Losses:
        """L_att and L_den of the surrogates as they are, at fixed (t, e)."""
        clean = self.encoder.attackers_latents(self.instances, perturbed=False)
        latents = (
            self.encoder.attackers_latents(self.instances, perturbed=True) if perturbed else clean
        )
        return measure_losses(
            self.losses,
            latents,
            clean,
            NUM_EVAL_PAIRS,
            self.seed,
            self.micro_batch,
        )

    def train_static_surrogate(self) -> None:
        """Step 0: theta_s learns the clean photos and references; then it stays as it is."""
        if not self.method.layers.dual_surrogates:
            return
        encoder, surrogate = self.encoder, self.method.surrogates
        latents = [instance.clean_latents for instance in self.instances]
        latents += [encoder.encode(photo.clean, encoder.views(photo)) for photo in self.references]
        tuner = FineTuner(self.surrogates["static"], self.diffusion, surrogate, self.cost)
        generator = keyed_generator(self.seed, "static")
        tuner.train(torch.cat(latents), surrogate.step0_steps, generator)

    def _weigh_timesteps(self) -> None:
        """SimAC's choice of timesteps, measured once on the clean photos."""
        if self.looks.timestep_choice == "gradient":
            latents = self.encoder.attackers_latents(self.instances, perturbed=False)
            self.timestep_weights = gradient_by_timestep(
                self.losses, latents, NUM_TIMESTEP_BINS, self.seed, self.micro_batch
            )
