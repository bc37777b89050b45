"""How much a face's change is seen: ColorVideoVDP of the face, shown at twice its size, in JOD.

Mantiuk et al. 2024 (arXiv:2401.11485), by its authors' package. PSNR and LPIPS of a whole photo do
not see a face that looks ten years older; this does. Knows pairs of images and where a face is.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.faces import face_square
from dladiff.image_values import Image, Images, Perturbation, image_to_tensor
from dladiff.results import Face
from dladiff.transforms import resize_antialiased

if TYPE_CHECKING:
    from dladiff.waitless_vdp import WaitlessVdp

Square = Float[Tensor, "1 3 _ _"]
"""A face with its surroundings, of whatever size."""

DISPLAY = "standard_4k"
"""A display of 30 inches, seen from .75 m: 75 pixels per degree, 200 cd/m2."""
SQUARE_SCALE = 1.3
"""Side of the square that is looked at, in sides of the face box: forehead, chin and some hair."""
MAGNIFICATION = 2.0
"""People look at faces enlarged; changes that vanish at 1 are seen at 2."""
_LARGEST_SIDE_PX = 1024
"""A face that is larger is shown at this size, which fills a screen: the measure of one of 2,600
pixels takes 3.4 GB and 16 CPU seconds, and our change is no finer than its grid."""
_SMALLEST_SIDE_PX = 32
"""Below, the measure's pyramid has no level."""


def face_visibility_jod(
    clean: Images, other: Images, face: Face, magnification: float = MAGNIFICATION
) -> Float[Tensor, ""]:
    """How alike two copies of a face look: 10 is no difference, 1 less is seen by 3 of 4.

    Args:
        clean: One photo in [0, 1].
        other: Its copy of the same size.
        face: In their pixels.
        magnification: At which the face is looked at, by bicubic interpolation.

    Returns:
        Just-objectionable differences, at most 10, on the device; differentiable.
    """
    part = (..., *square_around(face, *clean.shape[-2:]))
    return _jod_of_squares(clean[part], other[part], magnification)


def face_visibility_gradient(clean: Images, perturbation: Perturbation, face: Face) -> Perturbation:
    """Where and how a change must grow to be seen more: d(10 - JOD) / d(perturbation).

    From half the distance, where a face looks twice as large: a quarter of the cost of enlarging
    it, and nearly the same JOD.
    """
    leaf = perturbation.detach().requires_grad_(True)
    part = (..., *square_around(face, *clean.shape[-2:]))
    shown = [_at_most(images[part]) for images in (clean, clean + leaf)]
    jod = measure_on(clean.device, MAGNIFICATION).jod(shown[1], shown[0])
    return torch.autograd.grad(-jod, leaf)[0]


def _at_most(square: Square) -> Square:
    """Reduced to what a screen shows at twice its size; never enlarged."""
    scale = _LARGEST_SIDE_PX / MAGNIFICATION / max(square.shape[-2:])
    if scale >= 1:
        return square
    height, width = (round(length * scale) for length in square.shape[-2:])
    return resize_antialiased(square, height, width)


@torch.no_grad()
def worst_face_jod(
    clean: Image,
    other: Image,
    faces: Sequence[Face],
    device: torch.device | str,
    magnification: float = MAGNIFICATION,
) -> float | None:
    """``face_visibility_jod`` of the face that shows most; None without a face."""
    jods = []
    for face in faces:
        part = square_around(face, *clean.shape[:2])
        pair = [image_to_tensor(image[part], device) for image in (clean, other)]
        jods.append(float(_jod_of_squares(pair[0], pair[1], magnification)))
    return min(jods, default=None)


def square_around(face: Face, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square that is looked at, as far as a photo of this size reaches."""
    left, top, right, bottom = face_square(face, SQUARE_SCALE)
    rows = slice(max(0, math.floor(top)), min(height, math.ceil(bottom)))
    columns = slice(max(0, math.floor(left)), min(width, math.ceil(right)))
    return rows, columns


def _jod_of_squares(clean: Square, other: Square, magnification: float) -> Float[Tensor, ""]:
    shown = [_shown(square, magnification) for square in (clean, other)]
    return measure_on(clean.device).jod(shown[1], shown[0])


def _shown(square: Square, magnification: float) -> Square:
    scale = min(magnification, _LARGEST_SIDE_PX / max(square.shape[-2:]))
    scale = max(scale, _SMALLEST_SIDE_PX / min(square.shape[-2:]))
    size = [round(length * scale) for length in square.shape[-2:]]
    if scale <= 1:
        return resize_antialiased(square, *size)
    enlarged = functional.interpolate(square, size=size, mode="bicubic", align_corners=False)
    return enlarged.clamp(0, 1)


@cache
def measure_on(device: torch.device, nearness: float = 1.0) -> "WaitlessVdp":
    """The measure, loaded once for a device and a distance.

    Imported where it is used: that takes seconds, and methods without faces need none.
    """
    from dladiff.waitless_vdp import WaitlessVdp

    return WaitlessVdp(DISPLAY, device, nearness)
