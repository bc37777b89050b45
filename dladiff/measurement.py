"""What was reached, measured on the rounded photo: the very bytes that a PNG gives back.

Knows clean and protected photos and the models. Knows nothing of how the protection was made.
"""

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, UInt8

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.faces import crop_from_photo, rescaled, warp
from dladiff.image_values import Crops, Image, image_to_tensor
from dladiff.quality import LearnedPerceptualDistance, psnr_db, ssim
from dladiff.results import Face, IdentityCosine, PhotoResult

HANDLING_JPEG_QUALITY = 75
HANDLING_SCALE = 0.5
_SAME_FACE_DISTANCE = 0.3
"""A face found within this share of the clean face's size from its place is the same one."""


def measure_photo(
    result: PhotoResult,
    clean: Image,
    detector: FaceDetector,
    encoders: Sequence[IdentityEncoder],
    lpips: LearnedPerceptualDistance | None,
    target_cosine: float,
) -> None:
    """Writes quality and identity of ``result.image`` against ``clean`` into ``result``.

    Of several faces the highest cosine is reported: the one protected least.

    Args:
        result: With ``image`` and ``faces`` (clean landmarks, mask extents) set.
        clean: The clean photo.
        detector: Finds the faces anew, as an attacker would.
        encoders: White boxes and held-out ones.
        lpips: None: not reported.
        target_cosine: What every white-box cosine must not exceed, on a face that is found.
    """
    if result.image is None:
        raise ValueError(f"photo {result.key} has no protected image to measure")
    protected = result.image
    change = np.abs(protected.astype(np.int16) - clean.astype(np.int16)).max(axis=2)
    outside = ~_inside_masks(clean, result.faces)
    result.max_change_levels = int(change.max())
    result.max_change_levels_outside_faces = int(change[outside].max(initial=0))
    result.psnr_db = psnr_db(clean, protected)
    result.ssim = ssim(clean, protected)
    result.lpips = None if lpips is None else lpips.between(clean, protected)
    if result.faces and encoders:
        result.identity_cosines, all_found = _identity_cosines(
            clean, protected, result.faces, detector, encoders
        )
        white_box = [item.after for item in result.identity_cosines if not item.held_out]
        result.target_met = all_found and max(white_box, default=1.0) <= target_cosine


def _inside_masks(clean: Image, faces: Sequence[Face]) -> Bool[np.ndarray, "height width"]:
    inside = np.zeros(clean.shape[:2], dtype=bool)
    for face in faces:
        if face.mask_extent is not None:
            left, top, right, bottom = face.mask_extent
            inside[top:bottom, left:right] = True
    return inside


@torch.no_grad()
def _identity_cosines(
    clean: Image,
    protected: Image,
    faces: Sequence[Face],
    detector: FaceDetector,
    encoders: Sequence[IdentityEncoder],
) -> tuple[list[IdentityCosine], bool]:
    """The cosines of each encoder, and whether every face is found on the protected photo."""
    recoded = _jpeg(clean, HANDLING_JPEG_QUALITY)
    handled = handle(protected)
    found = [_find(detector, protected, face, 1.0) for face in faces]
    seen = {
        "before": (recoded, [_find(detector, recoded, face, 1.0)[0] for face in faces]),
        "after": (protected, [face for face, _ in found]),
        "handled": (handled, [_find(detector, handled, face, HANDLING_SCALE)[0] for face in faces]),
    }
    cosines = []
    for encoder in encoders:
        device = next(encoder.network.parameters()).device
        reference = encoder.embed(_crops(clean, faces, encoder, device))
        values = {
            name: float(
                (encoder.embed(_crops(image, seen_faces, encoder, device)) * reference)
                .sum(dim=1)
                .max()
            )
            for name, (image, seen_faces) in seen.items()
        }
        cosines.append(
            IdentityCosine(
                encoder=encoder.name,
                held_out=encoder.held_out,
                before=values["before"],
                after=values["after"],
                after_handling=values["handled"],
            )
        )
    return cosines, all(was_found for _, was_found in found)


def handle(image: Image) -> UInt8[np.ndarray, "half_height half_width 3"]:
    """What a platform leaves of a photo: half its size, then JPEG 75, by Pillow."""
    height, width = image.shape[:2]
    size = (max(1, round(width * HANDLING_SCALE)), max(1, round(height * HANDLING_SCALE)))
    small = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.LANCZOS)
    return _jpeg(np.asarray(small), HANDLING_JPEG_QUALITY)


def _jpeg(image: Image, quality: int) -> Image:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return np.array(PIL.Image.open(buffer))


def _find(detector: FaceDetector, image: Image, face: Face, scale: float) -> tuple[Face, bool]:
    """The face as found in this image, or its clean landmarks where it is not found.

    Args:
        detector: Finds faces.
        image: A copy of the photo, resized by ``scale``.
        face: The face on the clean photo at full size.
        scale: Of the copy.
    """
    expected = rescaled(face, scale)
    size = max(expected.box[2] - expected.box[0], expected.box[3] - expected.box[1])
    candidates = [
        (float(np.linalg.norm(other.landmarks - expected.landmarks, axis=1).mean()), other)
        for other in detector.detect(image)
    ]
    near = [item for item in candidates if item[0] <= _SAME_FACE_DISTANCE * size]
    if not near:
        return expected, False
    return min(near, key=lambda item: item[0])[1], True


def _crops(
    image: Image, faces: Sequence[Face], encoder: IdentityEncoder, device: torch.device
) -> Crops:
    """The aligned crops of these faces as a plain pipeline takes them."""
    images = image_to_tensor(image, device)
    crops = [
        warp(images, np.linalg.inv(crop_from_photo(face, encoder.template)), encoder.side)
        for face in faces
    ]
    return torch.cat(crops)
