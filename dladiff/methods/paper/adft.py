"""Layer 1: dual surrogates (DSUR) and alternating dynamic fine-tuning (ADFT).

Section 3 of the paper (arXiv:2511.19910). Knows the photos of one person and a checkpoint; knows
no faces' identity and nothing of layer 2 beyond a fixed perturbation that it may have to bear.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from dladiff.config import Layer1Settings
from dladiff.diffusion.attention_maps import AttentionReader, attention_layers
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.fine_tuning import FineTuner
from dladiff.diffusion.surrogates import Surrogates, open_surrogates
from dladiff.image_values import levels_to_unit
from dladiff.methods.image_gradients import LatentGradient, draw_step, perturbation_gradients
from dladiff.methods.photo_latents import PhotoEncoder
from dladiff.methods.surrogate_losses import (
    Layer1Losses,
    SurrogateLosses,
    gradient_by_timestep,
    measure_losses,
)
from dladiff.photo_at_work import PhotoAtWork
from dladiff.randomness import derive_seed, keyed_generator
from dladiff.results import Cost
from dladiff.stopwatch import timed

NUM_TIMESTEP_BINS = 10
"""Of timestep choice ``gradient``."""
NUM_EVAL_PAIRS = 16
"""Fixed (timestep, noise) pairs per photo at which losses are measured before and after."""

OnProgress = Callable[[str, float], None]
"""Called between steps with a stage name and the fraction done."""


@dataclass(frozen=True)
class Layer1Metrics:
    """What layer 1 reached, on the photos as an attacker would see them."""

    losses_before: Layer1Losses
    """Of the final surrogates on the clean photos."""
    losses_after: Layer1Losses
    """Of the same surrogates at the same (t, e) on the perturbed photos."""


@contextmanager
def open_finetuning_defense(
    photos: Sequence[PhotoAtWork],
    references: Sequence[PhotoAtWork],
    diffusion: DiffusionModel,
    settings: Layer1Settings,
    seed: int,
    micro_batch: int = 8,
    cost: Cost | None = None,
) -> Iterator["FinetuningDefense"]:
    """Holds the surrogates of one person for as long as layer 2's interplay may need them."""
    seed = derive_seed(seed, "layer1", *[photo.key for photo in photos])
    with open_surrogates(diffusion, settings.surrogate, ("static", "dynamic"), seed) as surrogates:
        yield FinetuningDefense(
            photos, references, diffusion, surrogates, settings, seed, micro_batch, cost or Cost()
        )


@dataclass(frozen=True)
class AdftSchedule:
    """Steps of an epoch after the ablation switches, at equal signed steps."""

    attention_steps: int
    denoising_steps: int
    surrogate_steps: int

    @classmethod
    def of(cls, settings: Layer1Settings) -> "AdftSchedule":
        """No DSUR: K1's steps go to K2. No ADFT: K3 = 0, theta_d stays theta_pre."""
        k1, k2 = settings.attention_steps, settings.denoising_steps
        if not settings.dual_surrogates:
            k1, k2 = 0, k1 + k2
        return cls(k1, k2, settings.surrogate_steps if settings.dynamic_fine_tuning else 0)


@dataclass
class FinetuningDefense:
    """Layer 1 at work on one person; use through ``open_finetuning_defense``."""

    photos: Sequence[PhotoAtWork]
    references: Sequence[PhotoAtWork]
    diffusion: DiffusionModel
    surrogates: Surrogates
    settings: Layer1Settings
    seed: int
    micro_batch: int
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        settings, diffusion = self.settings, self.diffusion
        unet, side = diffusion.unet, diffusion.resolution // diffusion.vae_scale_factor
        layers = attention_layers(unet, side, settings.include_largest_maps)
        self.dynamic_tuner = FineTuner(
            self.surrogates["dynamic"], diffusion, settings.surrogate, self.cost
        )
        self.losses = SurrogateLosses(
            static=self.surrogates["static"],
            dynamic=self.surrogates["dynamic"],
            reader=AttentionReader(unet, layers, settings.drop_bos),
            diffusion=diffusion,
            cost=self.cost,
        )
        self.encoder = PhotoEncoder(diffusion, settings, self.seed, self.micro_batch, self.cost)
        self.instances = [self.encoder.begin(photo) for photo in self.photos]
        self.epoch = self.step = 0
        self.timestep_weights: torch.Tensor | None = None

    def run(self, on_progress: OnProgress | None = None) -> Layer1Metrics:
        """Step 0, then all ADFT epochs."""
        report = on_progress or (lambda stage, fraction: None)
        settings = self.settings
        with timed(self.cost, "step0", self.diffusion.device):
            self.train_static_surrogate()
            self._weigh_timesteps()
        for epoch in range(1, settings.num_epochs + 1):
            with timed(self.cost, "layer1", self.diffusion.device):
                self.alternate()
            report("layer1", epoch / settings.num_epochs)
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
        settings, schedule = self.settings, AdftSchedule.of(self.settings)
        self.epoch += 1
        reset = settings.dynamic_reset_epochs
        if train and reset is not None and self.epoch > 1 and (self.epoch - 1) % reset == 0:
            self.dynamic_tuner.reset()
        if settings.joint_steps:
            # Without DSUR there are no static maps: momentum stays, so that ablations compare.
            dual = settings.dual_surrogates
            gradient = self.losses.joint_gradient if dual else self.losses.denoising_gradient
            for _ in range(schedule.attention_steps + schedule.denoising_steps):
                self.ascend(gradient, settings.joint_momentum)
        else:
            for _ in range(schedule.attention_steps):
                self.ascend(self.losses.attention_gradient)
            for _ in range(schedule.denoising_steps):
                self.ascend(self.losses.denoising_gradient)
        if train and schedule.surrogate_steps:
            generator = keyed_generator(self.seed, "dynamic", self.epoch)
            latents = self.encoder.one_view_each(self.instances, self.epoch)
            self.dynamic_tuner.train(latents, schedule.surrogate_steps, generator)
        for instance in self.instances:
            instance.photo.ascent.require_live(f"layer 1, epoch {self.epoch}")

    def ascend(self, latent_gradient: LatentGradient, momentum: float = 0.0) -> None:
        """One signed step of every photo that raises a loss, within eta_ft around x."""
        draws = [
            draw_step(
                instance, self.settings, self.diffusion, self.seed, self.step, self.timestep_weights
            )
            for instance in self.instances
        ]
        gradients = perturbation_gradients(
            self.instances, draws, latent_gradient, self.diffusion, self.micro_batch, self.cost
        )
        step_size = levels_to_unit(self.settings.step_size_levels)
        for instance, gradient in zip(self.instances, gradients, strict=True):
            instance.photo.ascent.step(gradient, step_size, momentum)
        self.step += 1

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
        if not self.settings.dual_surrogates:
            return
        encoder, surrogate = self.encoder, self.settings.surrogate
        latents = [instance.clean_latents for instance in self.instances]
        latents += [encoder.encode(photo.clean, encoder.views(photo)) for photo in self.references]
        tuner = FineTuner(self.surrogates["static"], self.diffusion, surrogate, self.cost)
        generator = keyed_generator(self.seed, "static")
        tuner.train(torch.cat(latents), surrogate.step0_steps, generator)

    def _weigh_timesteps(self) -> None:
        """SimAC's choice of timesteps, measured once on the clean photos."""
        if self.settings.timestep_choice == "gradient":
            latents = self.encoder.attackers_latents(self.instances, perturbed=False)
            self.timestep_weights = gradient_by_timestep(
                self.losses, latents, NUM_TIMESTEP_BINS, self.seed, self.micro_batch
            )
