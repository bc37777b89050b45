"""Faces found and recognised in photos and in generated images: what all measurements rest on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dladiff.config import FaceDetectorSettings
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.evaluation.attackers_view import warp_photo
from dladiff.face_detection import load_face_detector
from dladiff.faces import ARCFACE_TEMPLATE, estimate_similarity
from tools.training.face_alignment import FACES_128, find_face
from tools.training.face_data import FACE_SIZE, to_images

MIN_SCORE = 0.6
"""Detection threshold of every measurement."""


@dataclass(frozen=True)
class Recognised:
    """Embeddings of a list of images; a row is zero where no face was found."""

    embeddings: NDArray[np.float32]
    found: NDArray[np.bool_]

    @property
    def face_detection_rate(self) -> float:
        """FDR: share of images in which a face was found."""
        return float(self.found.mean())

    def leak(self, reference: NDArray[np.float32]) -> float:
        """Mean cosine to a reference over **all** images, 0 where no face was found."""
        return float((self.embeddings @ reference).mean())

    def identity_score(self, reference: NDArray[np.float32]) -> float:
        """ISM: mean cosine over the images with a face; 0 if there is none."""
        rate = self.face_detection_rate
        return self.leak(reference) / rate if rate else 0.0

    @property
    def reference(self) -> NDArray[np.float32]:
        """Unit mean of the embeddings, which stands for a person."""
        mean = self.embeddings[self.found].mean(axis=0)
        unit: NDArray[np.float32] = mean / np.linalg.norm(mean)
        return unit


class FaceMeter:
    """Finds the largest face of each image and embeds its ArcFace crop."""

    def __init__(self, encoder: IdentityEncoder, min_score: float = MIN_SCORE) -> None:
        self.encoder = encoder
        self.detector = load_face_detector(FaceDetectorSettings(min_score=min_score))

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Returns the landmarks of the largest face, or None."""
        return find_face(self.detector, image)

    @torch.no_grad()
    def recognise(self, images: list[NDArray[np.uint8]]) -> Recognised:
        """Detects and embeds; images are RGB uint8 HWC of any size."""
        landmarks = [self.find(image) for image in images]
        embeddings = np.zeros((len(images), 128), np.float32)
        for index, (image, points) in enumerate(zip(images, landmarks, strict=True)):
            if points is not None:
                crop = warp_photo(image, estimate_similarity(points, ARCFACE_TEMPLATE), 112)
                embeddings[index] = self.encoder.embed(to_images(crop[None]))[0].numpy()
        return Recognised(embeddings, np.array([points is not None for points in landmarks]))

    def face_crop(
        self, image: NDArray[np.uint8], otherwise: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Warps the largest face to the reference models' crop, as an attacker would.

        Args:
            image: RGB uint8 HWC.
            otherwise: The clean photo, whose landmarks serve where a change hides the face: an
                attacker would mark it by hand.

        Raises:
            ValueError: If there is no face.
        """
        landmarks = self.find(image)
        if landmarks is None and otherwise is not None:
            landmarks = self.find(otherwise)
        if landmarks is None:
            raise ValueError("no face found in a photo that shall be cropped to its face")
        return warp_photo(image, estimate_similarity(landmarks, FACES_128), FACE_SIZE)


def to_uint8(images: Tensor) -> list[NDArray[np.uint8]]:
    """Rounds NCHW images in [0, 1] to a list of uint8 HWC arrays."""
    rounded = images.clamp(0, 1).mul(255).round().byte()
    return list(rounded.permute(0, 2, 3, 1).cpu().numpy())


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Reads a photo as RGB uint8 HWC."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
