"""One photo under protection by layer 1: what stays, and the perturbation that changes."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dladiff.diffusion.checkpoint import Latents
from dladiff.layer1.views import InstancePhoto, NativePhoto, View


@dataclass(eq=False)
class Instance:
    """One photo under protection: what stays, and the perturbation that changes."""

    photo: InstancePhoto
    views: tuple[View, ...]
    clean_latents: Latents
    """E(x) of each view, encoded once."""
    perturbation: NativePhoto
    """delta_ft on the photo's grid."""
    fixed: NativePhoto | None = None
    """delta_zs of layer 2, seen by every loss but not changed."""
    momentum: Tensor | None = None
    num_dead_steps: Tensor = field(default_factory=lambda: torch.zeros(1))

    @property
    def base(self) -> NativePhoto:
        """What the perturbation is added to, and projected around."""
        clean = self.photo.clean
        return clean if self.fixed is None else (clean + self.fixed).clamp(0, 1)
