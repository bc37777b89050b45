"""What recognisers still see of a photo after one pass through an autoencoder.

A customised model learns a face only as its autoencoder shows it, so this is the least that an
attack loses, seen in seconds and without any attack. Knows one photo; nothing of files or people.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import pad

from dladiff.config import AutoencoderSettings
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.errors import ModelError
from dladiff.evaluation.attackers_view import OtherImage, find_face
from dladiff.evaluation.distilled_autoencoder import (
    FILES,
    SCALE_FACTOR,
    load_distilled_autoencoder,
)
from dladiff.evaluation.judges import embed_face
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image, Images, image_to_tensor, tensor_to_image
from dladiff.weight_files import autoencoder_part

Embedding = Float[np.ndarray, " dim"]


@dataclass(frozen=True)
class RoundTrip:
    """One encoding and decoding of whole photos, of any size."""

    through: Callable[[Images], Images]
    factor: int
    """Sides are padded to its multiples with replicated borders, and cut again."""
    device: torch.device

    @torch.no_grad()
    def __call__(self, photo: Image) -> Image:
        images = image_to_tensor(photo, self.device)
        height, width = images.shape[-2:]
        padding = (0, -width % self.factor, 0, -height % self.factor)
        seen = self.through(pad(images, padding, mode="replicate"))
        return tensor_to_image(seen[..., :height, :width])


def load_round_trip(folder: Path, device: torch.device | str) -> RoundTrip:
    """An autoencoder by what its folder holds.

    Args:
        folder: TAEF2's two files, or a folder in diffusers format with ``vae/``.
        device: Where it shall live.

    Raises:
        ModelError: If it is neither, or damaged.
    """
    device = torch.device(device)
    if all((folder / name).is_file() for name in FILES):
        distilled = load_distilled_autoencoder(folder, device)
        return RoundTrip(distilled.forward, SCALE_FACTOR, device)
    if not (autoencoder_part(folder) / "config.json").is_file():
        raise ModelError(
            f"{folder}: no autoencoder: expected {' and '.join(FILES)} (TAEF2), or a folder in "
            "diffusers format: a checkpoint's with vae/config.json, or an autoencoder's own"
        )
    from dladiff.diffusion.checkpoint import load_autoencoder

    vae = load_autoencoder(AutoencoderSettings(checkpoint=str(folder)), device)
    return RoundTrip(lambda images: vae.decode(vae.encode(images)), vae.vae_scale_factor, device)


@dataclass(frozen=True)
class Look:
    """What the judges see of one photo, at one size and under one handling."""

    found: bool
    """A face was found after the autoencoder; where not, the clean photo's place is looked at."""
    published: dict[str, Embedding]
    """Mean cosine by judge, before the autoencoder."""
    through: dict[str, Embedding]
    """Mean cosine by judge, after the autoencoder."""


def see_through(
    round_trip: RoundTrip,
    detector: FaceDetector,
    judges: Sequence[IdentityEncoder],
    photo: OtherImage,
    clean: OtherImage,
    short_side: int | None,
) -> Look:
    """Brings a photo to a size, and looks at it before and after the autoencoder.

    Args:
        round_trip: The autoencoder.
        detector: Of the face; an attacker marks by hand one that a change hides.
        judges: Who look.
        photo: As it reaches the attacker.
        clean: Its original, handled alike.
        short_side: In pixels; None: as it comes.

    Raises:
        ValueError: If not even the clean photo shows a face.
    """
    published, original = (scaled(image, short_side) for image in (photo, clean))
    seen = round_trip(published)
    face_before = find_face(detector, published, original)
    if face_before is None:
        raise ValueError("no_face: the clean photo shows no face")
    found = bool(detector.detect(seen))
    face = find_face(detector, seen, original) or face_before
    return Look(
        found,
        {judge.name: embed_face(judge, published, face_before) for judge in judges},
        {judge.name: embed_face(judge, seen, face) for judge in judges},
    )


def scaled(photo: OtherImage, short_side: int | None) -> OtherImage:
    """The photo with a short side of so many pixels: by area where it shrinks, else bicubic."""
    height, width = photo.shape[:2]
    if short_side is None or min(height, width) == short_side:
        return photo
    factor = short_side / min(height, width)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = (round(width * factor), round(height * factor))
    resized: OtherImage = cv2.resize(photo, size, interpolation=method)
    return resized
