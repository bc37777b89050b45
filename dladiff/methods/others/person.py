"""The photos of one person at work under a baseline: the same start, view and budget for all.

Knows photos, budgets and how much may be spent. Knows no loss.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from dladiff.budget import budget_map
from dladiff.config import MethodSettings, SurrogateSettings, preset_settings
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.evaluation.settings import attack_settings
from dladiff.image_values import levels_to_unit
from dladiff.methods.photo_latents import Looks, PhotoEncoder, ViewedPhoto
from dladiff.photo_at_work import PhotoAtWork
from dladiff.placement import face_masks
from dladiff.projected_gradient import Budget
from dladiff.quality import LearnedPerceptualDistance
from dladiff.results import Cost


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """What is equal for every baseline, so that they differ in what they do and nothing else."""

    face_levels: float = 18.0
    """Budget inside face masks, 8-bit levels."""
    surroundings_levels: float = 3.0
    """Outside; a photo without a face has layer 1's budget everywhere, as in our method."""
    flat: bool = False
    """``face_levels`` everywhere: no mask and nothing spared, as the papers have it."""
    step_size_levels: float = 0.6375
    """Anti-DreamBooth's and our paper's 5e-3 on [-1, 1]."""
    seed: int = 0
    micro_batch: int = 8
    method: MethodSettings = field(default_factory=lambda: preset_settings("balanced"))
    """Where masks, masking and the checkpoint come from."""

    @classmethod
    def of(cls, method: MethodSettings) -> "BaselineSettings":
        """The budgets of a method's settings, as our loop has them, and its steps."""
        return cls(
            face_levels=method.face_levels,
            surroundings_levels=method.surroundings_levels,
            step_size_levels=method.loop.step_size_levels,
            seed=method.seed,
            micro_batch=method.micro_batch,
            method=method,
        )

    def surrogates(self, diffusion: DiffusionModel) -> SurrogateSettings:
        """Full weights that learn as fast as the DreamBooth attack.

        These papers fine-tune the whole UNet.
        """
        surrogates = self.method.surrogates
        attack = attack_settings("dreambooth", diffusion.face_template is not None)
        rate = surrogates.learning_rate or attack.learning_rate
        return surrogates.model_copy(update={"adaptation": "full", "learning_rate": rate})


AS_PAPERS_LOOK = Looks(
    num_views=1,
    view_shares=(0.0, 0.0, 1.0),
    timesteps_per_step=1,
    timestep_choice="uniform",
    handling=False,
)
"""One exact aligned view, one timestep per step, no handling: as these papers work."""


@dataclass(eq=False)
class Effort:
    """How much may be spent on a person: signed steps, or CPU seconds of the process."""

    num_steps: int | None = None
    cpu_seconds: float | None = None
    num_taken: int = 0
    started: float = field(default_factory=time.process_time)

    @property
    def cpu_seconds_spent(self) -> float:
        """CPU seconds of all threads since this began."""
        return time.process_time() - self.started

    @property
    def share(self) -> float:
        """What is spent, in [0, 1]; of the larger where both are limited."""
        shares = [0.0]
        if self.num_steps is not None:
            shares.append(self.num_taken / self.num_steps)
        if self.cpu_seconds is not None:
            shares.append(self.cpu_seconds_spent / self.cpu_seconds)
        return min(1.0, max(shares))


@dataclass(eq=False)
class Person:
    """Photos of one person, each at the start of its ascent, and the models that look at them."""

    instances: list[ViewedPhoto]
    diffusion: DiffusionModel
    photo_encoder: PhotoEncoder
    surrogates: SurrogateSettings
    """See ``BaselineSettings.surrogates``."""
    settings: BaselineSettings
    effort: Effort
    cost: Cost
    identity_encoder: IdentityEncoder | None = None
    """Only for those that read identities."""
    lpips: LearnedPerceptualDistance | None = None

    @classmethod
    def begin(
        cls,
        photos: Sequence[PhotoAtWork],
        diffusion: DiffusionModel,
        settings: BaselineSettings,
        effort: Effort,
        identity_encoder: IdentityEncoder | None = None,
        lpips: LearnedPerceptualDistance | None = None,
        cost: Cost | None = None,
    ) -> "Person":
        """Encodes the clean photos and starts each perturbation at noise of one step."""
        cost, surrogates = cost or Cost(), settings.surrogates(diffusion)
        encoder = PhotoEncoder(diffusion, AS_PAPERS_LOOK, settings.seed, settings.micro_batch, cost)
        instances = [
            encoder.begin(photo, budget_of(photo, settings), settings.step_size_levels)
            for photo in photos
        ]
        return cls(
            instances,
            diffusion,
            encoder,
            surrogates,
            settings,
            effort,
            cost,
            identity_encoder,
            lpips,
        )

    @property
    def clean_latents(self) -> Latents:
        """E(x) of every photo's view."""
        return torch.cat([instance.clean_latents for instance in self.instances])

    def perturbed_latents(self) -> Latents:
        """E(x + delta) of every photo's view; counted."""
        return self.photo_encoder.one_view_each(self.instances, 0)


def budget_of(photo: PhotoAtWork, settings: BaselineSettings) -> Budget:
    """Our method's budget map of a photo, or one budget for all pixels."""
    if settings.flat:
        return levels_to_unit(settings.face_levels)
    if not photo.faces:
        return levels_to_unit(settings.method.budget.fine_tuning_levels)
    return budget_map(
        photo.clean,
        settings.surroundings_levels,
        settings.face_levels,
        face_masks(photo.size, photo.faces, settings.method.budget.box_scale, photo.clean.device),
        settings.method.budget.floor_share,
    )
