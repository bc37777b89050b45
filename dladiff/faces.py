"""Faces: where they are, the transform to an encoder's template, the differentiable warp.

Knows photos, landmarks and geometry. Knows nothing of what an encoder sees in a face.
Coordinates are pixel indices as in OpenCV: the centre of the first pixel is (0, 0).
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.image_values import Crops, Images
from dladiff.results import Face
from dladiff.transforms import resize_antialiased

Matrix = Float[np.ndarray, "3 3"]
"""A similarity transform of the plane, homogeneous, float64; ``b_from_a`` maps a to b."""

ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
"""Left eye, right eye, nose, mouth corners in pixels of the 112 px crop (insightface)."""
ARCFACE_SIDE = 112
ATTACKERS_FACE_SCALE = 1.6
"""Side of the square around a face that attackers crop, relative to the long side of its box."""


def rescaled(face: Face, scale: float) -> Face:
    """The face in a copy of the photo resized by ``scale``."""
    left, top, right, bottom = (edge * scale for edge in face.box)
    landmarks = (face.landmarks + 0.5) * np.float32(scale) - np.float32(0.5)
    return replace(face, box=(left, top, right, bottom), landmarks=landmarks, mask_extent=None)


def estimate_similarity(
    source: Float[np.ndarray, "points 2"], target: Float[np.ndarray, "points 2"]
) -> Matrix:
    """The rotation, scale and shift that take ``source`` to ``target`` in least squares.

    Umeyama 1991, in the plane, where complex numbers give it in closed form (no reflection).
    """
    a = source[:, 0].astype(np.float64) + 1j * source[:, 1].astype(np.float64)
    b = target[:, 0].astype(np.float64) + 1j * target[:, 1].astype(np.float64)
    centred = a - a.mean()
    turn = np.vdot(centred, b - b.mean()) / np.vdot(centred, centred).real
    shift = b.mean() - turn * a.mean()
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0.0, 0.0, 1.0]]
    )


def pixel_rescaling(scale_x: float, scale_y: float) -> Matrix:
    """Pixel indices after resizing: ``(i + 1/2) * scale - 1/2``."""
    return np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1.0]])


def warp(
    images: Images, image_from_crop: Matrix, crop_height: int, crop_width: int | None = None
) -> Crops:
    """Samples a crop with plain bilinear weights, black outside, as cv2.warpAffine.

    Args:
        images: One or more images of one size, sampled alike.
        image_from_crop: Where in the image each pixel of the crop lies.
        crop_height: Height of the crop in pixels.
        crop_width: Its width; None: a square.
    """
    height, width = images.shape[-2:]
    to_grid = np.array(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1.0]]
    )
    matrix = torch.from_numpy((to_grid @ image_from_crop)[:2]).to(torch.float64)
    rows = torch.arange(crop_height, dtype=torch.float64)
    columns = torch.arange(crop_width or crop_height, dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ matrix.T
    grid = points.to(images)[None].expand(images.shape[0], -1, -1, -1)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def warp_prefiltered(
    images: Images, image_from_crop: Matrix, side: int
) -> Float[Tensor, "batch 3 side side"]:
    """Warps after averaging over the area of a crop pixel, where that is over a pixel."""
    reduction = float(np.sqrt(abs(np.linalg.det(image_from_crop[:2, :2]))))
    if reduction <= 1.0:
        return warp(images, image_from_crop, side)
    height, width = images.shape[-2:]
    small_height, small_width = (max(1, round(n / reduction)) for n in (height, width))
    small_from_image = pixel_rescaling(small_width / width, small_height / height)
    small = resize_antialiased(images, small_height, small_width)
    return warp(small, small_from_image @ image_from_crop, side)


def face_square(face: Face, scale: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a square around the face box, ``scale`` times its long side."""
    left, top, right, bottom = face.box
    half = max(right - left, bottom - top) * scale / 2
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


def crop_from_photo(face: Face, template: Float[np.ndarray, "5 2"] = ARCFACE_TEMPLATE) -> Matrix:
    """The transform of a photo's pixels to those of an encoder's crop."""
    return estimate_similarity(face.landmarks, template)
