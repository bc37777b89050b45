"""Losses of the caller's own, beside those of the method: ``L_id + weight * loss``.

Knows images and gradients. What a loss means is the caller's; it is raised, like L_id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.image_values import Images
from dladiff.photo_at_work import NativePhoto, PhotoAtWork

LossFn = Callable[[Images], Float[Tensor, ""]]
"""A photo as it stands, a batch of one in [0, 1], to a scalar that shall rise."""


@dataclass(frozen=True, eq=False)
class OwnLoss:
    """A loss of the caller's and its share in each step."""

    loss_fn: LossFn
    """Differentiable in its argument; the same photo at the same step must give the same value, or
    the bytes differ from run to run."""
    weight: float = 1.0
    """1: its gradient is as long as that of L_id."""


@runtime_checkable
class LikenessGradients(Protocol):
    """What the loop asks of L_id: ``AutoencoderLikeness``, or that with own losses."""

    def gradients(
        self, photos: Sequence[PhotoAtWork], step: int, turn: int | None = None
    ) -> tuple[list[NativePhoto], Float[Tensor, " photos"]]: ...


class WithOwnLosses:
    """L_id's gradients with those of own losses added, each brought to L_id's length."""

    def __init__(self, likeness: LikenessGradients, losses: Sequence[OwnLoss]) -> None:
        self.likeness = likeness
        self.losses = losses

    def gradients(
        self, photos: Sequence[PhotoAtWork], step: int, turn: int | None = None
    ) -> tuple[list[NativePhoto], Float[Tensor, " photos"]]:
        """Gives what ``AutoencoderLikeness.gradients`` gives."""
        gradients, cosines = self.likeness.gradients(photos, step, turn)
        pairs = zip(photos, gradients, strict=True)
        return [self._with_own(photo, gradient) for photo, gradient in pairs], cosines

    def _with_own(self, photo: PhotoAtWork, gradient: NativePhoto) -> NativePhoto:
        total, length = gradient, gradient.norm()
        for loss in self.losses:
            leaf = photo.ascent.leaf()
            value = loss.loss_fn((photo.base + leaf).clamp(0, 1))
            if value.numel() != 1 or not value.requires_grad:
                raise ValueError(
                    "an own loss must return one value that is differentiable in the images, got "
                    f"shape {tuple(value.shape)}, requires_grad={value.requires_grad}"
                )
            (own,) = torch.autograd.grad(value.sum(), leaf)
            total = total + loss.weight * own * (length / own.norm().clamp_min(1e-30))
        return total
