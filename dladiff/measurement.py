"""What was reached, measured on the rounded photo: the very bytes that a PNG gives back.

Knows clean and protected photos and the models. Knows nothing of how the protection was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool

from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.faces import (
    crop_from_photo,
    estimate_similarity,
    rescaled,
    warp,
    warp_prefiltered,
)
from dladiff.image_values import Crops, Image, image_to_tensor
from dladiff.models import ProtectionModels
from dladiff.quality import psnr_db, ssim
from dladiff.recoding import half_size, jpeg
from dladiff.results import Face, IdentityCosine
from dladiff.visible_difference import worst_face_jod

CropsOf = Callable[[IdentityEncoder], Crops]
"""The faces of one copy of a photo as an encoder reads them."""

_SAME_FACE_DISTANCE = 0.3
"""A face found within this share of the clean face's size from its place is the same one."""


@dataclass(frozen=True)
class Measured:
    """One protected photo beside its clean self."""

    max_change_levels: int
    max_change_levels_outside_faces: int
    changed_pixels: float
    """Share of pixels with any change, 0..1; 0 means that nothing was protected."""
    psnr_db: float
    ssim: float
    lpips: float | None
    """None where its weights are not installed."""
    face_visibility_jod: float | None
    """JOD of the face that shows most, at twice its size; None without a face."""
    face_visibility_jod_1x: float | None
    """The same at its own size."""
    identity_cosines: list[IdentityCosine]
    model_likeness: list[IdentityCosine]
    """The same of what the checkpoint's autoencoder shows; empty without one or without a face."""
    target_met: bool | None
    """Every white-box cosine at most the target, on a face that is found; None without a face."""


def measure_photo(
    clean: Image,
    protected: Image,
    faces: Sequence[Face],
    models: ProtectionModels,
    target_cosine: float | None,
) -> Measured:
    """Measures quality and identity of a protected photo.

    Of several faces the highest cosine is reported: the one protected least.

    Args:
        clean: The clean photo.
        protected: The very bytes that are saved.
        faces: With clean landmarks and mask extents.
        models: The detector finds faces anew, as an attacker would; white boxes and held-out
            encoders judge them.
        target_cosine: What every white-box cosine must not exceed; None: the method has no such
            aim. Neither has one without white boxes.
    """
    largest, largest_outside = largest_change(clean, protected, faces)
    cosines, seen_by_model, target_met = list[IdentityCosine](), list[IdentityCosine](), None
    if faces and models.encoders:
        looks = _looks(clean, protected, faces, models.detector)
        own = partial(_crops, clean, faces, models.device)
        plain = [partial(_crops, look.image, look.faces, models.device) for look in looks.copies]
        cosines = _identity_cosines(own, plain, models.encoders)
        white_box = [item.after for item in cosines if not item.held_out]
        if white_box and target_cosine is not None:
            target_met = looks.all_found and max(white_box) <= target_cosine
        if models.autoencoders:
            shown = [_crops_shown(look, models.autoencoders[0]) for look in looks.copies]
            seen_by_model = _identity_cosines(own, shown, models.encoders)
    return Measured(
        max_change_levels=largest,
        max_change_levels_outside_faces=largest_outside,
        changed_pixels=float((protected != clean).any(axis=2).mean()),
        psnr_db=psnr_db(clean, protected),
        ssim=ssim(clean, protected),
        lpips=None if models.lpips is None else models.lpips.between(clean, protected),
        face_visibility_jod=worst_face_jod(clean, protected, faces, models.device),
        face_visibility_jod_1x=worst_face_jod(clean, protected, faces, models.device, 1.0),
        identity_cosines=cosines,
        model_likeness=seen_by_model,
        target_met=target_met,
    )


def largest_change(clean: Image, other: Image, faces: Sequence[Face]) -> tuple[int, int]:
    """Largest change of any value in 8-bit levels: anywhere, and outside all mask extents."""
    change = np.abs(other.astype(np.int16) - clean.astype(np.int16)).max(axis=2)
    outside = ~_inside_masks(clean, faces)
    return int(change.max()), int(change[outside].max(initial=0))


def _inside_masks(clean: Image, faces: Sequence[Face]) -> Bool[np.ndarray, "height width"]:
    inside = np.zeros(clean.shape[:2], dtype=bool)
    for face in faces:
        if face.mask_extent is not None:
            left, top, right, bottom = face.mask_extent
            inside[top:bottom, left:right] = True
    return inside


@dataclass(frozen=True)
class _Look:
    """One copy of the photo, and its faces as found there."""

    image: Image
    faces: list[Face]


@dataclass(frozen=True)
class _Looks:
    """The photo as three people have it."""

    recoded: _Look
    protected: _Look
    handled: _Look
    all_found: bool
    """Whether every face is found on the protected photo."""

    @property
    def copies(self) -> tuple[_Look, _Look, _Look]:
        """Before, after, and after handling."""
        return self.recoded, self.protected, self.handled


def _looks(clean: Image, protected: Image, faces: Sequence[Face], detector: FaceDetector) -> _Looks:
    recoded, handled = jpeg(clean), jpeg(half_size(protected))
    in_recoded, in_protected, in_handled = (
        detector.detect(image) for image in (recoded, protected, handled)
    )
    found = [_find(in_protected, face, 1.0) for face in faces]
    return _Looks(
        recoded=_Look(recoded, [_find(in_recoded, face, 1.0)[0] for face in faces]),
        protected=_Look(protected, [face for face, _ in found]),
        handled=_Look(handled, [_find(in_handled, face, 0.5)[0] for face in faces]),
        all_found=all(was_found for _, was_found in found),
    )


@torch.no_grad()
def _identity_cosines(
    own: CropsOf, copies: Sequence[CropsOf], encoders: Sequence[IdentityEncoder]
) -> list[IdentityCosine]:
    """Each encoder's cosines of three copies of a photo to the clean faces, ``own``."""
    cosines = []
    for encoder in encoders:
        reference = encoder.embed(own(encoder))
        before, after, after_handling = (
            float((encoder.embed(crops_of(encoder)) * reference).sum(dim=1).max())
            for crops_of in copies
        )
        cosines.append(
            IdentityCosine(encoder.name, encoder.held_out, before, after, after_handling)
        )
    return cosines


def _find(others: Sequence[Face], face: Face, scale: float) -> tuple[Face, bool]:
    """The face as found in a copy of the photo, or its clean landmarks where it is not found.

    Args:
        others: Faces of the copy, which was resized by ``scale``.
        face: The face on the clean photo at full size.
        scale: Of the copy.
    """
    expected = rescaled(face, scale)
    size = max(expected.box[2] - expected.box[0], expected.box[3] - expected.box[1])
    candidates = [
        (float(np.linalg.norm(other.landmarks - expected.landmarks, axis=1).mean()), other)
        for other in others
    ]
    near = [item for item in candidates if item[0] <= _SAME_FACE_DISTANCE * size]
    if not near:
        return expected, False
    return min(near, key=lambda item: item[0])[1], True


def _crops(
    image: Image, faces: Sequence[Face], device: torch.device, encoder: IdentityEncoder
) -> Crops:
    """The aligned crops of these faces as a plain pipeline takes them."""
    images = image_to_tensor(image, device)
    crops = [
        warp(images, np.linalg.inv(crop_from_photo(face, encoder.template)), encoder.side)
        for face in faces
    ]
    return torch.cat(crops)


@torch.no_grad()
def _crops_shown(look: _Look, autoencoder: Autoencoder) -> CropsOf:
    """The same crops of what the autoencoder shows of each face: what a model learns from.

    Decoded once for all encoders.
    """
    side = autoencoder.resolution
    points = autoencoder.aligned_template.numpy().astype(np.float64) * side
    images = image_to_tensor(look.image, autoencoder.device)
    views = [
        warp_prefiltered(images, np.linalg.inv(crop_from_photo(face, points)), side)
        for face in look.faces
    ]
    shown = torch.cat([autoencoder.decode(autoencoder.encode(view)) for view in views])

    def crops_of(encoder: IdentityEncoder) -> Crops:
        to_crop = np.linalg.inv(estimate_similarity(points, encoder.template))
        return warp_prefiltered(shown, to_crop, encoder.side)

    return crops_of
