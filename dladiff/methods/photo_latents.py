"""Photos through their views to latents, encoded as rarely as possible and without a graph.

Knows views and the VAE; knows no surrogate and no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from dladiff.config import MethodSettings
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.image_values import levels_to_unit
from dladiff.layer1.views import View, attackers_views, training_views
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.projected_gradient import Budget
from dladiff.randomness import keyed_generator
from dladiff.results import Cost


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Through what a loss of latents sees photos: a few fixed views, handling, timesteps."""

    num_views: int = 8
    """Views of each photo."""
    view_shares: tuple[float, float, float] = (0.2, 0.2, 0.6)
    """Shares of whole-photo, face-square and aligned-face views; the last only where the
    checkpoint is made for aligned faces, the last two only where a face was found. More of what
    the checkpoint was trained on measures better [X]."""
    timesteps_per_step: int
    timestep_choice: Literal["stratified", "uniform", "gradient"]
    handling: bool

    @classmethod
    def of(cls, method: MethodSettings) -> "Looks":
        """The looks that settings ask for; without views, the whole photo once [P]."""
        layers = method.layers
        looks = cls(
            timesteps_per_step=method.surrogates.timesteps_per_step,
            timestep_choice=layers.timestep_choice,
            handling=method.handling,
        )
        if layers.use_views:
            return looks
        return replace(looks, num_views=1, view_shares=(1.0, 0.0, 0.0))


@dataclass(eq=False)
class ViewedPhoto:
    """A photo at work with the fixed views through which surrogates see it."""

    photo: PhotoAtWork
    views: tuple[View, ...]
    clean_latents: Latents
    """E(x) of each view, encoded once."""


class PhotoEncoder:
    """Encodes the photos of one person; every encoding is counted."""

    def __init__(
        self,
        diffusion: DiffusionModel,
        looks: Looks,
        seed: int,
        micro_batch: int,
        cost: Cost,
    ) -> None:
        self.diffusion = diffusion
        self.looks = looks
        self.seed = seed
        self.micro_batch = micro_batch
        self.cost = cost
        self._clean: dict[str, Latents] = {}

    def begin(self, photo: PhotoAtWork, budget: Budget, start_levels: float) -> ViewedPhoto:
        """A photo's views with their clean latents, and its first perturbation, which is noise."""
        views, start = self.views(photo), levels_to_unit(start_levels)
        photo.begin(budget, start, keyed_generator(self.seed, photo.key, "start"))
        return ViewedPhoto(photo, views, self.encode(photo.clean, views))

    def views(self, photo: PhotoAtWork) -> tuple[View, ...]:
        """The photo's fixed views, from its own draws."""
        looks, diffusion = self.looks, self.diffusion
        return training_views(
            photo,
            looks.num_views,
            looks.view_shares,
            diffusion.face_template,
            diffusion.resolution,
            keyed_generator(self.seed, photo.key, "fixed views"),
        )

    @torch.no_grad()
    def encode(self, images: NativePhoto, views: Sequence[View]) -> Latents:
        """E of several views of one photo."""
        seen = torch.cat([view.look(images, self.diffusion.resolution) for view in views])
        self.cost.vae_passes += len(seen)
        parts = torch.split(seen, self.micro_batch)
        return torch.cat([self.diffusion.encode(part) for part in parts])

    def one_view_each(self, instances: Sequence[ViewedPhoto], number: int) -> Latents:
        """E(x + delta) through one view per photo, another one for each ``number``."""
        return torch.cat(
            [
                self.encode(
                    instance.photo.ascent.images,
                    [instance.views[number % len(instance.views)]],
                )
                for instance in instances
            ]
        )

    def attackers_latents(self, instances: Sequence[ViewedPhoto], perturbed: bool) -> Latents:
        """E of the photos as an attacker sees them; perturbed ones rounded to 8 bits."""
        return torch.cat(
            [
                self._perturbed(instance) if perturbed else self._clean_of(instance)
                for instance in instances
            ]
        )

    def _perturbed(self, instance: ViewedPhoto) -> Latents:
        images = (instance.photo.ascent.images * 255).round() / 255
        return self.encode(images, self._attackers_views(instance))

    def _clean_of(self, instance: ViewedPhoto) -> Latents:
        key = instance.photo.key
        if key not in self._clean:
            views = self._attackers_views(instance)
            self._clean[key] = self.encode(instance.photo.clean, views)
        return self._clean[key]

    def _attackers_views(self, instance: ViewedPhoto) -> tuple[View, ...]:
        template, side = self.diffusion.face_template, self.diffusion.resolution
        return attackers_views(instance.photo, template, side)
