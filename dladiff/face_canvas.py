"""The canvas of a face: the lattice on which layer 2 draws, and the way back to the photo.

Knows photos, one face and geometry. Knows nothing of encoders and steps.
"""

import math
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
from dladiff.image_values import Image, Images, Perturbation, image_to_tensor
from dladiff.photo_sets import Face

Extent = tuple[int, int, int, int]
"""Left, top, right, bottom (exclusive) in pixels of the photo."""

_BLOCK = 32
"""Regions start at multiples of this: JPEG blocks, of halved copies too, stay the photo's."""
_FEATHER = 0.12
"""Share of the square's side over which the mask falls to zero at each edge."""
_CROP_REACH = 1.2
"""How far random views may reach, as a multiple of the encoder's crop."""


@dataclass(frozen=True, eq=False)
class FacePerturbation:
    """A perturbation of part of a photo; zero elsewhere."""

    extent: Extent
    values: Perturbation


@dataclass(frozen=True, eq=False)
class FaceCanvas:
    """One face on its lattice, whose cells are photo pixels or, for large faces, wider."""

    base: Images
    """(1, 3, rows, columns): the image to perturb on the lattice, layer 1 included."""
    mask: Float[Tensor, "1 1 rows columns"]
    """Weight of the perturbation on the lattice, in [0, 1]."""
    template_from_lattice: Matrix
    """To the 112 px ArcFace template."""
    native: Images
    """The same region at the photo's own pixels; ``base`` itself where cells are pixels."""
    template_from_native: Matrix
    region: Extent
    """What ``native`` shows of the photo."""
    extent: Extent
    """What may change."""
    native_mask: Float[Tensor, "1 1 height width"]
    """The mask over ``extent``, at the photo's own pixels."""
    native_from_lattice: Matrix | None
    """None: the lattice covers ``region`` upright; else where its points lie in the region."""

    @property
    def cells_are_pixels(self) -> bool:
        return self.native is self.base

    def to_photo(self, perturbation: Perturbation) -> FacePerturbation:
        """Carries a perturbation of the lattice up bilinearly: no value exceeds its bound."""
        height, width = self.native.shape[-2:]
        if self.native_from_lattice is not None:
            lattice_from_native = np.linalg.inv(self.native_from_lattice)
            carried = warp(perturbation, lattice_from_native, height, width)
        elif self.cells_are_pixels:
            carried = perturbation
        else:
            carried = functional.interpolate(perturbation, size=(height, width), mode="bilinear")
        left, top, right, bottom = self.extent
        x, y = self.region[:2]
        carried = carried[..., top - y : bottom - y, left - x : right - x]
        return FacePerturbation(self.extent, carried * self.native_mask)


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
    template_from_native = crop_from_photo(face) @ _shift(region[0], region[1])
    mask = _soft_mask(square, region, extent, device)
    left, top = extent[0] - region[0], extent[1] - region[1]
    return FaceCanvas(
        base=base,
        mask=functional.interpolate(mask, size=base.shape[-2:], mode="area"),
        template_from_lattice=template_from_native @ np.linalg.inv(lattice_from_native),
        native=native,
        template_from_native=template_from_native,
        region=region,
        extent=extent,
        native_mask=mask[..., top:, left:][..., : extent[3] - extent[1], : extent[2] - extent[0]],
        native_from_lattice=None,
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
    template_from_native = crop_from_photo(face) @ _shift(region[0], region[1])
    native_from_template = np.linalg.inv(template_from_native)
    height, width = native.shape[-2:]
    base = warp(native, native_from_template, ARCFACE_SIDE)
    return FaceCanvas(
        base=base,
        mask=torch.ones_like(base[:, :1]),
        template_from_lattice=np.eye(3),
        native=native,
        template_from_native=template_from_native,
        region=region,
        extent=region,
        native_mask=torch.ones(1, 1, height, width, device=base.device),
        native_from_lattice=native_from_template,
    )


def _cut(
    clean: Image, perturbation: Perturbation | None, region: Extent, device: torch.device | str
) -> Images:
    left, top, right, bottom = region
    images = image_to_tensor(clean[top:bottom, left:right], device)
    if perturbation is not None:
        images = (images + perturbation[..., top:bottom, left:right].to(images)).clamp(0.0, 1.0)
    return images


def _shift(x: float, y: float) -> Matrix:
    """From pixels of a region to pixels of the photo."""
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def _crop_bounds(face: Face, scale: float) -> tuple[float, float, float, float]:
    """The upright bounds in the photo of the (rotated) ArcFace crop, grown by ``scale``."""
    centre, half = (ARCFACE_SIDE - 1) / 2, ARCFACE_SIDE / 2 * scale
    corners = np.array(
        [[centre + x * half, centre + y * half, 1] for x in (-1, 1) for y in (-1, 1)]
    )
    points = corners @ np.linalg.inv(crop_from_photo(face)).T
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _union(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _within(
    bounds: tuple[float, float, float, float], shape: tuple[int, ...], block: int
) -> Extent:
    """Whole blocks that hold the bounds, cut at the photo's border."""
    height, width = shape[:2]
    left, top = (max(0, math.floor(edge / block) * block) for edge in bounds[:2])
    right, bottom = (math.ceil(edge / block) * block for edge in bounds[2:])
    return left, top, min(width, right), min(height, bottom)


def _soft_mask(
    square: tuple[float, float, float, float],
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
