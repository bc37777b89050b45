"""Pairs of clean and protected photos for a remover: matched, decoded, cut around the face.

Photos are matched as ``dladiff evaluate`` matches them, so PROTECTED may be a run's OUTPUT.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch

from dladiff.evaluation.remover import Box, box_in_photo
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image, Images
from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError, PhotoError
from pipeline.evaluation.people import photos_by_identity, protected_uris
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.storage.store import read_uri

CROP_SIDE_PX = 128
MAX_SIDE_PX = 768
"""Of the part of a photo that is kept: 3.5 MB of memory a pair at most."""
HELD_OUT_SHARE = 0.1
FACE_SHARE = 0.8
"""Share of crops whose middle lies in the face; the others lie anywhere."""
CLEAN_SHARE = 0.25
"""Share of inputs that are clean and shall stay as they are: so the size of the change tells a
protected photo from a clean one."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One photo twice, cut to what is kept."""

    identity: str
    clean: Image
    protected: Image
    face: Box
    """Left, top, right, bottom of the largest face of the clean photo, in pixels of the part;
    the whole part where there is none."""


@dataclass(frozen=True)
class Pairs:
    """What a remover learns from and what it is judged by; of different people."""

    training: Sequence[Pair]
    held_out: Sequence[Pair]
    digest: str
    """Of all files, hex."""
    left_out: Counter[str]
    """Photos by why they are in no pair."""


def read_pairs(clean_uri: str, protected_uri: str, detector: FaceDetector) -> Pairs:
    """Reads every photo that lies in both trees; a tenth of the people is held out, at least one.

    Args:
        clean_uri: Folder or bucket with ``<identity>/<photo>``.
        protected_uri: The same protected, or the OUTPUT of a run.
        detector: Of faces.

    Raises:
        ConfigurationError: If a tree is missing, or there are pairs of fewer than two people.
    """
    photos = read_catalog(clean_uri, OperationSettings()).photos
    protected = protected_uris(photos, protected_uri)
    left_out: Counter[str] = Counter()
    digest = sha256()
    found: dict[str, list[Pair]] = {}
    for identity, of_person in photos_by_identity(photos).items():
        for photo in of_person:
            if photo.uri not in protected:
                left_out["not_protected"] += 1
                continue
            contents = read_uri(photo.uri), read_uri(protected[photo.uri])
            for content in contents:
                digest.update(sha256(content).digest())
            try:
                pair = make_pair(identity, *contents, detector)
            except PhotoError as error:
                left_out[error.reason.code] += 1
            except ValueError as error:
                left_out[str(error)] += 1
            else:
                found.setdefault(identity, []).append(pair)
    if len(found) < 2:
        raise ConfigurationError(
            f"pairs of at least two people are needed, one of whom is held out; found {len(found)}"
            f" (photos left out: {counted(left_out)})"
        )
    order = sorted(found, key=lambda identity: sha256(identity.encode()).digest())
    num_held_out = max(1, round(HELD_OUT_SHARE * len(order)))
    held_out, training = (
        [pair for identity in chosen for pair in found[identity]]
        for chosen in (order[:num_held_out], order[num_held_out:])
    )
    return Pairs(training, held_out, digest.hexdigest(), left_out)


def make_pair(identity: str, clean: bytes, protected: bytes, detector: FaceDetector) -> Pair:
    """Decodes two files of one photo and cuts both alike, around the largest face.

    Raises:
        PhotoError: If one cannot be decoded.
        ValueError: If they are no pair to learn from; the message is a short reason.
    """
    image, changed = (decode_photo(one, PhotoLimits()).image for one in (clean, protected))
    if image.shape != changed.shape:
        raise ValueError("other_size")
    if min(image.shape[:2]) < CROP_SIDE_PX:
        raise ValueError("too_small")
    if np.array_equal(image, changed):
        raise ValueError("unchanged")
    faces = detector.detect(image)
    face = box_in_photo(faces[0] if faces else None, image)
    left, top = (
        min(max((low + high - MAX_SIDE_PX) // 2, 0), max(size - MAX_SIDE_PX, 0))
        for low, high, size in (
            (face[0], face[2], image.shape[1]),
            (face[1], face[3], image.shape[0]),
        )
    )
    part = slice(top, top + MAX_SIDE_PX), slice(left, left + MAX_SIDE_PX)
    height, width = image[part].shape[:2]
    return Pair(
        identity,
        image[part].copy(),
        changed[part].copy(),
        (
            max(face[0] - left, 0),
            max(face[1] - top, 0),
            min(face[2] - left, width),
            min(face[3] - top, height),
        ),
    )


def draw_batch(
    pairs: Sequence[Pair], batch_size: int, random: np.random.Generator
) -> tuple[Images, Images]:
    """Random crops, mirrored half of the time: what the remover is given, and what is clean."""
    given, clean = zip(*(_draw(pairs, random) for _ in range(batch_size)), strict=True)
    return _to_images(given), _to_images(clean)


def _draw(pairs: Sequence[Pair], random: np.random.Generator) -> tuple[Image, Image]:
    pair = pairs[int(random.integers(len(pairs)))]
    height, width = pair.clean.shape[:2]
    left, top, right, bottom = pair.face if random.random() < FACE_SHARE else (0, 0, width, height)
    column, row = (
        int(min(max(random.uniform(low, high) - CROP_SIDE_PX / 2, 0), size - CROP_SIDE_PX))
        for low, high, size in ((left, right, width), (top, bottom, height))
    )
    part = slice(row, row + CROP_SIDE_PX), slice(column, column + CROP_SIDE_PX)
    step = -1 if random.random() < 0.5 else 1
    source = pair.clean if random.random() < CLEAN_SHARE else pair.protected
    return source[part][:, ::step], pair.clean[part][:, ::step]


def _to_images(crops: Sequence[Image]) -> Images:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def counted(reasons: Counter[str]) -> str:
    """Reasons and numbers in words; names nobody."""
    return ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items())) or "none"
