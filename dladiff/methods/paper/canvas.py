"""The paper's canvas: a lattice over a face that is perturbed by itself, and how encoders see it.

Knows one face, its photo and geometry; differentiable in the perturbation. Knows no steps.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.faces import (
    ARCFACE_SIDE,
    ARCFACE_TEMPLATE,
    Matrix,
    crop_from_photo,
    estimate_similarity,
    face_square,
    pixel_rescaling,
    warp,
    warp_prefiltered,
)
from dladiff.image_values import Crops, Image, Perturbation, image_to_tensor
from dladiff.layer2.face_views import FaceView
from dladiff.placement import (
    BLOCK,
    CROP_REACH,
    Bounds,
    Extent,
    Placement,
    crop_bounds,
    shift,
    within,
)
from dladiff.results import Face
from dladiff.transforms import PhotometricTransform

GRID_MAX_CELLS = 256
"""A side, of the grid on which the perturbation of a face lives."""


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


def image_canvas(
    clean: Image,
    perturbation: Perturbation | None,
    face: Face,
    device: torch.device | str,
    box_scale: float,
) -> FaceCanvas:
    """A grid over the face box of at most ``GRID_MAX_CELLS`` a side, aligned with the photo."""
    square = face_square(face, box_scale)
    extent = within(square, clean.shape, block=1)
    reach = _union(square, crop_bounds(face, CROP_REACH))
    region = within(reach, clean.shape, BLOCK)
    native = _cut(clean, perturbation, region, device)
    height, width = native.shape[-2:]
    cell_px = max(1.0, (square[2] - square[0]) / GRID_MAX_CELLS)
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
    device: torch.device | str,
) -> FaceCanvas:
    """The aligned crop itself, as the paper perturbs it; warped back bilinearly."""
    region = within(crop_bounds(face, 1.0), clean.shape, block=1)
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


def crop_of(
    view: FaceView, canvas: FaceCanvas, perturbation: Perturbation, encoder: IdentityEncoder
) -> Crops:
    """The crop that ``encoder`` would read of the perturbed face in one view."""
    crop_from_template = estimate_similarity(ARCFACE_TEMPLATE, encoder.template) @ view.jitter
    to_crop = crop_from_template @ canvas.template_from_lattice
    masked = perturbation * canvas.mask
    if view.transform == PhotometricTransform() and not view.prefilter:
        # The warp is linear, so the photo may be sampled at its own pixels, aliased as cv2
        # would, and the smooth perturbation on its lattice.
        crop = warp(masked, np.linalg.inv(to_crop), encoder.side)
        native = np.linalg.inv(crop_from_template @ canvas.template_from_native)
        return (crop + warp(canvas.native, native, encoder.side)).clamp(0.0, 1.0)
    image = view.transform.apply((canvas.base + masked).clamp(0.0, 1.0))
    sample = warp_prefiltered if view.prefilter else warp
    return sample(image, np.linalg.inv(to_crop), encoder.side)


def still_view(canvas: FaceCanvas, perturbation: Perturbation, encoder: IdentityEncoder) -> Crops:
    """The crop as a plain pipeline takes it: no jitter, no filter, no handling."""
    view = FaceView(np.eye(3), False, PhotometricTransform())
    return crop_of(view, canvas, perturbation, encoder)


def _union(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
