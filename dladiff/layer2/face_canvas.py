"""The canvas of a face: the lattice on which layer 2 draws, and the way back to the photo.

Knows photos, one face and geometry. Knows nothing of encoders and steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.config import Layer2Settings
from dladiff.faces import (
    ARCFACE_SIDE,
    Matrix,
    crop_from_photo,
    face_square,
    pixel_rescaling,
    warp,
)
from dladiff.image_values import Crops, Image, Perturbation, image_to_tensor
from dladiff.results import Face

Extent = tuple[int, int, int, int]
"""Left, top, right, bottom (exclusive) in pixels of the photo."""
Bounds = tuple[float, float, float, float]
"""The same, not yet whole pixels."""

_BLOCK = 32
"""Regions start at multiples of this: JPEG blocks, of halved copies too, stay the photo's."""
_FEATHER = 0.12
"""Share of the square's side over which the mask falls to zero at each edge."""
_CROP_REACH = 1.2
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


@dataclass(frozen=True, eq=False)
class FaceCanvas:
    """One face on its lattice, whose cells are photo pixels or, for large faces, wider."""

    base: Float[Tensor, "1 3 rows columns"]
    """The image to perturb on the lattice, in [0, 1], layer 1 included."""
    mask: Float[Tensor, "1 1 rows columns"]
    """Weight of the perturbation on the lattice, in [0, 1]."""
    template_from_lattice: Matrix
    """To the 112 px ArcFace template."""
    native: Float[Tensor, "1 3 height width"]
    """The same region at the photo's own pixels; ``base`` itself where cells are pixels."""
    template_from_native: Matrix
    placement: Placement


def place_face(size: tuple[int, ...], face: Face, settings: Layer2Settings) -> Placement:
    """Where a face's perturbation lies in a photo of ``size`` (height, width); no lattice."""
    square = face_square(face, settings.box_scale)
    extent = _within(square, size, block=1)
    return Placement(region=extent, extent=extent, square=square, lattice_from_native=None)


def face_masks(
    size: tuple[int, int],
    faces: Sequence[Face],
    settings: Layer2Settings,
    device: torch.device | str = "cpu",
) -> list[Float[Tensor, "1 1 photo_height photo_width"]]:
    """The mask of each face over a photo of ``size`` (height, width)."""
    return [place_face(size, face, settings).whole_mask(size, device) for face in faces]


def image_canvas(
    clean: Image,
    perturbation: Perturbation | None,
    face: Face,
    settings: Layer2Settings,
    device: torch.device | str,
) -> FaceCanvas:
    """A grid over the face box of at most ``grid_max_cells`` a side, aligned with the photo."""
    square = face_square(face, settings.box_scale)
    extent = _within(square, clean.shape, block=1)
    reach = _union(square, _crop_bounds(face, _CROP_REACH))
    region = _within(reach, clean.shape, _BLOCK)
    native = _cut(clean, perturbation, region, device)
    height, width = native.shape[-2:]
    cell_px = max(1.0, (square[2] - square[0]) / settings.grid_max_cells)
    base, lattice_from_native = native, np.eye(3)
    if cell_px > 1.0:
        size = (math.ceil(height / cell_px), math.ceil(width / cell_px))
        base = functional.interpolate(native, size=size, mode="area")
        lattice_from_native = pixel_rescaling(size[1] / width, size[0] / height)
    template_from_native = crop_from_photo(face) @ shift(region[0], region[1])
    placement = Placement(region, extent, square, None)
    mask = functional.interpolate(placement.mask(device), size=base.shape[-2:], mode="area")
    return FaceCanvas(
        base=base,
        mask=mask,
        template_from_lattice=template_from_native @ np.linalg.inv(lattice_from_native),
        native=native,
        template_from_native=template_from_native,
        placement=placement,
    )


def crop_canvas(
    clean: Image,
    perturbation: Perturbation | None,
    face: Face,
    settings: Layer2Settings,
    device: torch.device | str,
) -> FaceCanvas:
    """The aligned crop itself, as the paper perturbs it; warped back bilinearly."""
    region = _within(_crop_bounds(face, 1.0), clean.shape, block=1)
    native = _cut(clean, perturbation, region, device)
    template_from_native = crop_from_photo(face) @ shift(region[0], region[1])
    base = warp(native, np.linalg.inv(template_from_native), ARCFACE_SIDE)
    return FaceCanvas(
        base=base,
        mask=torch.ones_like(base[:, :1]),
        template_from_lattice=np.eye(3),
        native=native,
        template_from_native=template_from_native,
        placement=Placement(region, region, None, template_from_native),
    )


def _cut(
    clean: Image, perturbation: Perturbation | None, region: Extent, device: torch.device | str
) -> Crops:
    left, top, right, bottom = region
    images = image_to_tensor(clean[top:bottom, left:right], device)
    if perturbation is not None:
        images = (images + perturbation[..., top:bottom, left:right].to(images)).clamp(0.0, 1.0)
    return images


def shift(x: int, y: int) -> Matrix:
    """From pixels of a region to pixels of the photo."""
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def visible_extent(face: Face, size: tuple[int, ...]) -> Extent:
    """What random views of a face may reach in a photo of ``size`` (height, width)."""
    return _within(_crop_bounds(face, _CROP_REACH), size, _BLOCK)


def _crop_bounds(face: Face, scale: float) -> Bounds:
    """The upright bounds in the photo of the (rotated) ArcFace crop, grown by ``scale``."""
    centre, half = (ARCFACE_SIDE - 1) / 2, ARCFACE_SIDE / 2 * scale
    corners = np.array(
        [[centre + x * half, centre + y * half, 1] for x in (-1, 1) for y in (-1, 1)]
    )
    points = corners @ np.linalg.inv(crop_from_photo(face)).T
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _union(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _within(bounds: Bounds, shape: tuple[int, ...], block: int) -> Extent:
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
