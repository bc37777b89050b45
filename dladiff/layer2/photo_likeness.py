"""What encoders see on the photo itself, as gradients of perturbations on the photo's grid.

Layer 2's loss for a loop that also has other aims: a face that is unlike enough asks for no more,
since a surplus would only be seen. Knows faces, encoders and handling; takes no steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.encoders.identity_encoders import FACES_PER_PASS, IdentityEncoder
from dladiff.faces import (
    ARCFACE_TEMPLATE,
    Matrix,
    crop_from_photo,
    estimate_similarity,
    warp,
    warp_prefiltered,
)
from dladiff.identities import FaceIdentity
from dladiff.image_values import Crops, Images
from dladiff.layer2.face_views import OUR_WARPS, FaceView, Warps, draw_view
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.placement import shift, visible_extent
from dladiff.randomness import keyed_generator
from dladiff.results import Cost
from dladiff.transforms import gaussian_blur

_SMOOTHING_SHARE = 1.5 / 112
"""Standard deviation of the Gaussian that smooths gradients, in sides of a crop: an encoder's own
gradient draws creases and specks that the eye sees and ColorVideoVDP hardly does. Smooth changes
look like light, last longer under JPEG, and move what the autoencoder shows as well [X, measured:
docs/archive/tried.md, *Smooth steps*]."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """One handled part of a photo around a face, as this step sees it."""

    images: Images
    template_from_images: Matrix
    """To the 112 px ArcFace template, jitter included."""
    view: FaceView
    identity: FaceIdentity

    def crop(self, encoder: IdentityEncoder) -> Crops:
        crop_from_template = estimate_similarity(ARCFACE_TEMPLATE, encoder.template)
        images_from_crop = np.linalg.inv(crop_from_template @ self.template_from_images)
        sample = warp_prefiltered if self.view.prefilter else warp
        return sample(self.images, images_from_crop, encoder.side)


class PhotoLikeness:
    """Descends ``max(0, cos(IE_i(crop_M'(x + delta)), IE_i(crop_M(x))) - target)``."""

    def __init__(
        self,
        encoders: Sequence[IdentityEncoder],
        handling: bool,
        target_cosine: float,
        seed: int,
        micro_batch: int,
        cost: Cost,
        warps: Warps = OUR_WARPS,
        is_smooth: bool = False,
    ) -> None:
        """Nothing is computed yet.

        Args:
            encoders: White boxes only.
            handling: Whether photos are handled first.
            target_cosine: Below it a face asks for no more.
            seed: Of all draws, together with photo, face and step.
            micro_batch: Photos per pass.
            cost: Where passes are counted.
            warps: Through which faces are seen.
            is_smooth: Whether each encoder's gradient is smoothed.
        """
        self.encoders = encoders
        self.handling = handling
        self.warps = warps
        self.is_smooth = is_smooth
        self.target_cosine = target_cosine
        self.seed = seed
        self.micro_batch = micro_batch
        self.cost = cost

    def gradients(self, photos: Sequence[PhotoAtWork], step: int) -> list[NativePhoto]:
        """The gradient that makes each photo's faces less like themselves; 0 where they are.

        Args:
            photos: Each with at least one face.
            step: Keys the draws.
        """
        gradients: list[NativePhoto] = []
        for start in range(0, len(photos), self.micro_batch):
            gradients += self._of_group(photos[start : start + self.micro_batch], step)
        return gradients

    def _of_group(self, photos: Sequence[PhotoAtWork], step: int) -> list[NativePhoto]:
        """The same; a group photo's faces take turns, and their gradients add up."""
        faces = [
            (row, number)
            for row, photo in enumerate(photos)
            for number in range(len(photo.identities))
        ]
        total: dict[int, NativePhoto] = {}
        for first in range(0, len(faces), FACES_PER_PASS):
            turn = faces[first : first + FACES_PER_PASS]
            for row, gradient in self._of_turn(photos, turn, step).items():
                total[row] = total[row] + gradient if row in total else gradient
        return [total[row] for row in range(len(photos))]

    def _of_turn(
        self, photos: Sequence[PhotoAtWork], turn: Sequence[tuple[int, int]], step: int
    ) -> dict[int, NativePhoto]:
        """Gradients by row of ``photos``, from some faces: pairs of row and number in the photo."""
        leaves = {row: photos[row].ascent.leaf() for row, _ in turn}
        seen = [self._look(photos[row], leaves[row], number, step) for row, number in turn]
        crops, upstream = [], []
        for encoder in self.encoders:
            of_encoder = torch.cat([face.crop(encoder) for face in seen])
            targets = torch.cat([face.identity.own[encoder.name] for face in seen])
            crops.append(of_encoder)
            upstream.append(encoder.weight * self._downhill(encoder, of_encoder, targets))
            self.cost.encoder_passes += len(of_encoder)
        gradients = torch.autograd.grad(crops, list(leaves.values()), upstream)
        return dict(zip(leaves, gradients, strict=True))

    def _look(self, photo: PhotoAtWork, leaf: NativePhoto, number: int, step: int) -> _Seen:
        """A face with its surroundings, handled; only this part of the photo is."""
        face = photo.faces[number]
        generator = keyed_generator(self.seed, photo.key, "photo likeness", number, step)
        view = draw_view(self.warps, self.handling, generator)
        left, top, right, bottom = visible_extent(face, leaf.shape[-2:])
        part = (..., slice(top, bottom), slice(left, right))
        images = view.transform.apply(photo.as_served(photo.base[part] + leaf[part]))
        template_from_images = view.jitter @ crop_from_photo(face) @ shift(left, top)
        return _Seen(images, template_from_images, view, photo.identities[number])

    def _downhill(
        self,
        encoder: IdentityEncoder,
        crops: Crops,
        targets: Float[Tensor, "crops dim"],
    ) -> Crops:
        """The gradient of ``-cos`` to each crop at unit length, 0 where the target is reached."""
        leaf = crops.detach().requires_grad_(True)
        cosines = (encoder.embed(leaf) * targets).sum(dim=1)
        (gradient,) = torch.autograd.grad(-cosines.sum(), leaf)
        if self.is_smooth:
            gradient = gaussian_blur(gradient, _SMOOTHING_SHARE * encoder.side)
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
        asks_for_more = (cosines.detach() > self.target_cosine).to(gradient)
        downhill: Crops = gradient * (asks_for_more / length).reshape(-1, 1, 1, 1)
        return downhill
