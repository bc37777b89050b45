"""Warps faces to the templates of ``faces128`` and of recognisers.

Images are RGB HWC uint8; landmarks are (5, 2) pixels: left eye, right eye (as the viewer sees
them), nose tip, left and right mouth corner.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dladiff.face_detection import FaceDetector
from dladiff.faces import ARCFACE_TEMPLATE, estimate_similarity
from tools.training.face_data import FACE_SIZE, TEMPLATE_128

FACES_128 = TEMPLATE_128 * FACE_SIZE
"""Landmarks of a ``faces128`` crop, pixels."""


def find_face(detector: FaceDetector, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Returns the landmarks of the largest face of an image, or None."""
    faces = detector.detect(image)
    return faces[0].landmarks.astype(np.float64) if faces else None


def recognition_crop(images: Tensor) -> Tensor:
    """Warps ``faces128`` crops to ArcFace crops by the templates alone, differentiably.

    Args:
        images: (batch, 3, 128, 128), any range.

    Returns:
        (batch, 3, 112, 112) in the same range, sampled bilinearly.
    """
    matrix = estimate_similarity(ARCFACE_TEMPLATE, FACES_128)
    # Pixel centres to normalised coordinates of both squares (align_corners=False).
    to_pixels = np.array([[56, 0, 55.5], [0, 56, 55.5], [0, 0, 1.0]])
    to_unit = np.array([[1 / 64, 0, -63.5 / 64], [0, 1 / 64, -63.5 / 64], [0, 0, 1.0]])
    theta = (to_unit @ matrix @ to_pixels)[:2]
    batch = images.shape[0]
    grid = functional.affine_grid(
        torch.tensor(theta, dtype=images.dtype, device=images.device).expand(batch, 2, 3),
        [batch, 3, 112, 112],
        align_corners=False,
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
