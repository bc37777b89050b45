"""Photos through their views to latents, encoded as rarely as possible and without a graph.

Knows views and the VAE; knows no surrogate and no loss.
"""

from collections.abc import Sequence

import torch

from dladiff.config import Layer1Settings
from dladiff.diffusion.checkpoint import DiffusionModel, Latents
from dladiff.image_values import levels_to_unit
from dladiff.layer1.instances import Instance
from dladiff.layer1.views import InstancePhoto, NativePhoto, View, attackers_views, training_views
from dladiff.projected_gradient import random_start
from dladiff.randomness import keyed_generator
from dladiff.results import Cost


class PhotoEncoder:
    """Encodes the photos of one person; every encoding is counted."""

    def __init__(
        self,
        diffusion: DiffusionModel,
        settings: Layer1Settings,
        seed: int,
        micro_batch: int,
        cost: Cost,
    ) -> None:
        self.diffusion = diffusion
        self.settings = settings
        self.seed = seed
        self.micro_batch = micro_batch
        self.cost = cost
        self._clean: dict[str, Latents] = {}

    def begin(self, photo: InstancePhoto) -> Instance:
        """A photo's views with their clean latents, and its first perturbation."""
        views = self.views(photo)
        # Where theta_s = theta_d, L_att has no gradient at delta = 0: start one step off it.
        start = levels_to_unit(min(self.settings.step_size_levels, self.settings.epsilon_levels))
        generator = keyed_generator(self.seed, photo.key, "start")
        return Instance(
            photo=photo,
            views=views,
            clean_latents=self.encode(photo.clean, views),
            perturbation=random_start(photo.clean, start, generator),
            num_dead_steps=torch.zeros(1, device=self.diffusion.device),
        )

    def views(self, photo: InstancePhoto) -> tuple[View, ...]:
        """The photo's fixed views, from its own draws."""
        settings, diffusion = self.settings, self.diffusion
        return training_views(
            photo,
            settings.views_per_photo if settings.use_views else 1,
            settings.view_shares if settings.use_views else (1.0, 0.0, 0.0),
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

    def one_view_each(self, instances: Sequence[Instance], number: int) -> Latents:
        """E(x + delta) through one view per photo, another one for each ``number``."""
        return torch.cat(
            [
                self.encode(
                    instance.base + instance.perturbation,
                    [instance.views[number % len(instance.views)]],
                )
                for instance in instances
            ]
        )

    def attackers_latents(self, instances: Sequence[Instance], perturbed: bool) -> Latents:
        """E of the photos as an attacker sees them; perturbed ones rounded to 8 bits."""
        return torch.cat(
            [
                self._perturbed(instance) if perturbed else self._clean_of(instance)
                for instance in instances
            ]
        )

    def _perturbed(self, instance: Instance) -> Latents:
        images = ((instance.base + instance.perturbation) * 255).round() / 255
        return self.encode(images, self._attackers_views(instance))

    def _clean_of(self, instance: Instance) -> Latents:
        key = instance.photo.key
        if key not in self._clean:
            views = self._attackers_views(instance)
            self._clean[key] = self.encode(instance.photo.clean, views)
        return self._clean[key]

    def _attackers_views(self, instance: Instance) -> tuple[View, ...]:
        template, side = self.diffusion.face_template, self.diffusion.resolution
        return attackers_views(instance.photo, template, side)
