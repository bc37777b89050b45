"""The photos of one person at work under a baseline: the same start, view and budget for all.

Knows photos, budgets and how many steps are taken. Knows no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dladiff.budget import budget_map
from dladiff.config import MethodSettings, SurrogateSettings
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

AS_PAPERS_LOOK = Looks(
    num_views=1,
    view_shares=(0.0, 0.0, 1.0),
    timesteps_per_step=1,
    timestep_choice="uniform",
    handling=False,
)
"""One exact aligned view, one timestep per step, no handling: as these papers work."""


@dataclass(eq=False)
class Person:
    """Photos of one person, each at the start of its ascent, and the models that look at them."""

    instances: list[ViewedPhoto]
    diffusion: DiffusionModel
    photo_encoder: PhotoEncoder
    surrogates: SurrogateSettings
    """See ``full_surrogates``."""
    settings: MethodSettings
    cost: Cost
    identity_encoder: IdentityEncoder | None = None
    """Only for those that read identities."""
    lpips: LearnedPerceptualDistance | None = None
    num_taken: int = 0
    """Signed steps so far."""

    @classmethod
    def begin(
        cls,
        photos: Sequence[PhotoAtWork],
        diffusion: DiffusionModel,
        settings: MethodSettings,
        cost: Cost,
        identity_encoder: IdentityEncoder | None = None,
        lpips: LearnedPerceptualDistance | None = None,
    ) -> "Person":
        """Encodes the clean photos and starts each perturbation at noise of one step."""
        encoder = PhotoEncoder(diffusion, AS_PAPERS_LOOK, settings.seed, settings.micro_batch, cost)
        step = settings.loop.step_size_levels
        instances = [encoder.begin(photo, budget_of(photo, settings), step) for photo in photos]
        surrogates = full_surrogates(settings, diffusion)
        return cls(
            instances, diffusion, encoder, surrogates, settings, cost, identity_encoder, lpips
        )

    @property
    def share_taken(self) -> float:
        """How much of the steps is done, in [0, 1]."""
        return self.num_taken / self.settings.loop.num_steps

    @property
    def clean_latents(self) -> Latents:
        """E(x) of every photo's view."""
        return torch.cat([instance.clean_latents for instance in self.instances])

    def perturbed_latents(self) -> Latents:
        """E(x + delta) of every photo's view; counted."""
        return self.photo_encoder.one_view_each(self.instances, 0)


def full_surrogates(settings: MethodSettings, diffusion: DiffusionModel) -> SurrogateSettings:
    """Full weights that learn as fast as the DreamBooth attack.

    These papers fine-tune the whole UNet.
    """
    surrogates = settings.surrogates
    attack = attack_settings("dreambooth", diffusion.face_template is not None)
    rate = surrogates.learning_rate or attack.learning_rate
    return surrogates.model_copy(update={"adaptation": "full", "learning_rate": rate})


def budget_of(photo: PhotoAtWork, settings: MethodSettings) -> Budget:
    """Our method's budget map of a photo; the model's budget everywhere where there is no face."""
    budget = settings.budget
    if not photo.faces:
        return levels_to_unit(budget.fine_tuning_levels)
    masks = face_masks(photo.size, photo.faces, budget.box_scale, photo.clean.device)
    return budget_map(
        photo.clean, settings.surroundings_levels, settings.face_levels, masks, budget.floor_share
    )
