"""Judges: how much of a person recognisers see in images, as made and smoothed.

A judge is an identity encoder that looks at the largest face of an image. A generator can learn to
repeat an adversarial pattern that fools recognisers and nobody else: what vanishes when the
images are smoothed (``handlings.smoothed``) is no protection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.evaluation.attackers_view import OtherImage, warp_photo
from dladiff.face_detection import FaceDetector
from dladiff.faces import crop_from_photo
from dladiff.image_values import Crops, Image, image_to_tensor
from dladiff.results import Face

MIN_FACE_SCORE = 0.6
"""Detection threshold of every measurement: passes 99 % of real face crops and at most 2 % of
decoded noise latents of the reference model."""

Embeddings = Float[np.ndarray, "images dim"]
Reference = Float[np.ndarray, " dim"]


@dataclass(frozen=True)
class Seen:
    """What one judge sees in a list of images; a row is zero where no face was found."""

    embeddings: Embeddings
    found: Bool[np.ndarray, " images"]

    @property
    def reference(self) -> Reference:
        """Unit mean of the embeddings, which stands for a person.

        Raises:
            ValueError: If no face was found in any image.
        """
        if not self.found.any():
            raise ValueError("no face was found in any reference photo of a person")
        mean = self.embeddings[self.found].mean(axis=0)
        reference: Reference = mean / np.linalg.norm(mean)
        return reference

    def cosines(self, reference: Reference) -> Float[np.ndarray, " images"]:
        """Cosine of each image to a reference, 0 where no face was found."""
        if not self.found.any():
            return np.zeros(len(self.found), np.float32)
        cosines: Float[np.ndarray, " images"] = self.embeddings @ reference
        return cosines


class Panel:
    """Several judges that share one face detector."""

    def __init__(self, detector: FaceDetector, judges: Sequence[IdentityEncoder]) -> None:
        self.detector = detector
        self.judges = list(judges)

    @torch.no_grad()
    def look(self, images: Sequence[OtherImage]) -> dict[str, Seen]:
        """What each judge sees, by name; images may be of any size."""
        faces = [next(iter(self.detector.detect(image)), None) for image in images]
        found = np.array([face is not None for face in faces], dtype=bool)
        return {judge.name: Seen(_embed(judge, images, faces), found) for judge in self.judges}


def _embed(
    judge: IdentityEncoder, images: Sequence[OtherImage], faces: Sequence[Face | None]
) -> Embeddings:
    rows: list[Float[np.ndarray, " dim"] | None] = []
    for image, face in zip(images, faces, strict=True):
        rows.append(None if face is None else embed_face(judge, image, face))
    width = next((len(row) for row in rows if row is not None), 1)
    return np.stack([np.zeros(width, np.float32) if row is None else row for row in rows])


def face_crop(encoder: IdentityEncoder, image: Image, face: Face) -> Crops:
    """One face of an image as an encoder reads it, on the CPU."""
    crop = warp_photo(image, crop_from_photo(face, encoder.template), encoder.side)
    return image_to_tensor(crop, "cpu")


@torch.no_grad()
def embed_face(judge: IdentityEncoder, image: Image, face: Face) -> Float[np.ndarray, " dim"]:
    """The unit embedding of one face of an image."""
    device = next(judge.network.parameters()).device
    crop = face_crop(judge, image, face).to(device)
    embedding: Float[np.ndarray, " dim"] = judge.embed(crop)[0].cpu().numpy()
    return embedding
