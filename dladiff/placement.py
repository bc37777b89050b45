"""Where in a photo a face may change: masks, extents, and a face's change put on its photo.

Knows photos, one face and geometry. Knows nothing of encoders and steps.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.faces import (
    ARCFACE_SIDE,
    Matrix,
    crop_from_photo,
    face_square,
    warp,
)
from dladiff.image_values import Images, Perturbation
from dladiff.projected_gradient import project
from dladiff.results import Face

Extent = tuple[int, int, int, int]
"""Left, top, right, bottom (exclusive) in pixels of the photo."""
Bounds = tuple[float, float, float, float]
"""The same, not yet whole pixels."""

BLOCK = 32
"""Regions start at multiples of this: JPEG blocks, of halved copies too, stay the photo's."""
_FEATHER = 0.12
"""Share of the square's side over which the mask falls to zero at each edge."""
CROP_REACH = 1.2
"""How far random views may reach, as a multiple of the encoder's crop."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a lattice lies in its photo; small enough to keep for every face of a set."""

    region: Extent
    """What the canvas shows of the photo."""
    extent: Extent
    """What may change; lies in ``region``."""
    square: Bounds | None
    """Around which the mask falls to zero; None: the perturbation ends by itself."""
    lattice_from_native: Matrix | None
    """From pixels of the region to the lattice; None: it covers the region upright."""

    def mask(self, device: torch.device | str = "cpu") -> Float[Tensor, "1 1 height width"]:
        """Weight of the perturbation over the region, exactly 0 outside ``extent``."""
        if self.square is None:
            left, top, right, bottom = self.region
            return torch.ones(1, 1, bottom - top, right - left, device=device)
        return _soft_mask(self.square, self.region, self.extent, device)

    def whole_mask(
        self, size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "1 1 photo_height photo_width"]:
        """The same over a photo of ``size`` (height, width), 0 outside the region."""
        mask = torch.zeros(1, 1, *size, device=device)
        left, top, right, bottom = self.region
        mask[..., top:bottom, left:right] = self.mask(device)
        return mask


@dataclass(frozen=True, eq=False)
class FacePerturbation:
    """The perturbation of one face, on its lattice."""

    lattice: Perturbation
    placement: Placement

    def on_photo(self) -> Perturbation:
        """Carried to the photo's pixels over ``placement.extent``, bilinearly.

        A bilinear value is a mean of lattice values, so that no bound is exceeded.
        """
        left, top, right, bottom = self.placement.region
        height, width = bottom - top, right - left
        if self.placement.lattice_from_native is not None:
            carried = warp(self.lattice, self.placement.lattice_from_native, height, width)
        elif self.lattice.shape[-2:] == (height, width):
            carried = self.lattice
        else:
            carried = functional.interpolate(self.lattice, size=(height, width), mode="bilinear")
        carried = carried * self.placement.mask(carried.device)
        x0, y0, x1, y1 = self.placement.extent
        return carried[..., y0 - top : y1 - top, x0 - left : x1 - left]


def place_face(size: tuple[int, ...], face: Face, box_scale: float) -> Placement:
    """Where a face's perturbation lies in a photo of ``size`` (height, width); no lattice."""
    square = face_square(face, box_scale)
    extent = within(square, size, block=1)
    return Placement(region=extent, extent=extent, square=square, lattice_from_native=None)


def face_masks(
    size: tuple[int, int],
    faces: Sequence[Face],
    box_scale: float,
    device: torch.device | str = "cpu",
) -> Iterator[Float[Tensor, "1 1 photo_height photo_width"]]:
    """The mask of each face over a photo of ``size`` (height, width), one after another."""
    return (place_face(size, face, box_scale).whole_mask(size, device) for face in faces)


def shift(x: int, y: int) -> Matrix:
    """From pixels of a region to pixels of the photo."""
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def visible_extent(face: Face, size: tuple[int, ...]) -> Extent:
    """What random views of a face may reach in a photo of ``size`` (height, width)."""
    return within(crop_bounds(face, CROP_REACH), size, BLOCK)


def crop_bounds(face: Face, scale: float) -> Bounds:
    """The upright bounds in the photo of the (rotated) ArcFace crop, grown by ``scale``."""
    centre, half = (ARCFACE_SIDE - 1) / 2, ARCFACE_SIDE / 2 * scale
    corners = np.array(
        [[centre + x * half, centre + y * half, 1] for x in (-1, 1) for y in (-1, 1)]
    )
    points = corners @ np.linalg.inv(crop_from_photo(face)).T
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def within(bounds: Bounds, shape: tuple[int, ...], block: int) -> Extent:
    """Whole blocks that hold the bounds, cut at the photo's border."""
    height, width = shape[:2]
    left, top = (max(0, math.floor(edge / block) * block) for edge in bounds[:2])
    right, bottom = (math.ceil(edge / block) * block for edge in bounds[2:])
    return left, top, min(width, right), min(height, bottom)


def _soft_mask(
    square: Bounds,
    region: Extent,
    extent: Extent,
    device: torch.device | str,
) -> Float[Tensor, "1 1 height width"]:
    """1 inside, falling smoothly to 0 at the square's edges, 0 outside ``extent``, exactly.

    Where the photo ends inside the square it stays 1: there is no seam to hide.
    """
    profiles = []
    for axis in (0, 1):
        low, high = square[axis], square[axis + 2]
        centres = torch.arange(region[axis], region[axis + 2], dtype=torch.float32) + 0.5
        depth = torch.minimum(centres - low, high - centres) / (_FEATHER * (high - low))
        depth = depth.clamp(0.0, 1.0)
        profile = depth * depth * (3.0 - 2.0 * depth)
        inside = (centres > extent[axis]) & (centres < extent[axis + 2])
        profiles.append(torch.where(inside, profile, torch.zeros(())))
    columns, rows = profiles
    return (rows[:, None] * columns[None, :])[None, None].to(device)


def add_to_photo(images: Images, added: Sequence[FacePerturbation], epsilon: float) -> Images:
    """``clip01(images + delta_zs)``; overlapping faces share one budget.

    Args:
        images: One photo in [0, 1], layer 1's perturbation included.
        added: Layer 2's, one per face.
        epsilon: eta_zs on the [0, 1] scale, for the sum of all faces.
    """
    total = torch.zeros_like(images)
    for face in added:
        left, top, right, bottom = face.placement.extent
        total[..., top:bottom, left:right] += face.on_photo().to(images)
    return images + project(total, images, epsilon)
