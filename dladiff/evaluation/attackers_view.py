"""Photos as an attacker prepares them: landmarks are found on the very file, faces are cropped.

Knows photos, faces and a checkpoint's geometry. Knows nothing of what is done with the crops.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from dladiff.evaluation.settings import ViewName
from dladiff.face_detection import FaceDetector
from dladiff.faces import ATTACKERS_FACE_SCALE, Matrix, estimate_similarity, face_square, rescaled
from dladiff.image_values import Image
from dladiff.results import Face

Crop = UInt8[np.ndarray, "side side 3"]
OtherImage = UInt8[np.ndarray, "_ _ 3"]
"""An image of a size of its own."""


def find_face(detector: FaceDetector, photo: Image, clean: OtherImage | None = None) -> Face | None:
    """The largest face of a photo; where a change hides it, the clean photo's, carried over.

    An attacker would mark the face by hand. ``clean`` may be of another size than ``photo``, as
    after a half-size copy.
    """
    faces = detector.detect(photo)
    if faces:
        return faces[0]
    if clean is None or not (faces := detector.detect(clean)):
        return None
    return rescaled(faces[0], photo.shape[0] / clean.shape[0])


def attackers_crop(
    photo: Image,
    face: Face | None,
    view: ViewName,
    side: int,
    template: Float[np.ndarray, "5 2"] | None = None,
) -> Crop:
    """One photo as the checkpoint's square input.

    Args:
        photo: RGB, HWC, uint8.
        face: Its face; needed for the views ``template`` and ``face``.
        view: ``template`` warps the landmarks to the checkpoint's; ``whole`` takes the middle
            square of the short side; ``face`` a square of 1.6 times the face box.
        side: Of the crop, pixels.
        template: Where the landmarks shall lie, in fractions of the side.

    Raises:
        ValueError: If there is no face, or no template, where one is needed.
    """
    if view != "whole" and face is None:
        raise ValueError("no face was found in a photo that shall be cropped to its face")
    if view == "template":
        if template is None:
            raise ValueError(
                "the view 'template' needs a checkpoint with a face_template.json: choose 'whole' "
                "or 'face'"
            )
        assert face is not None
        return warp_photo(photo, estimate_similarity(face.landmarks, template * side), side)
    height, width = photo.shape[:2]
    square = min(height, width)
    left, top = (width - square) / 2, (height - square) / 2
    if view == "face":
        assert face is not None
        left, top, right, _ = face_square(face, ATTACKERS_FACE_SCALE)
        square = min(max(round(right - left), 16), height, width)
        left = min(max(left, 0), width - square)
        top = min(max(top, 0), height - square)
    row, column = round(top), round(left)
    part = photo[row : row + square, column : column + square]
    # Area where it shrinks, smooth where it grows: as careful preparation scripts do.
    method = cv2.INTER_AREA if square > side else cv2.INTER_CUBIC
    resized: Crop = cv2.resize(part, (side, side), interpolation=method)
    return resized


def warp_photo(photo: Image, crop_from_photo: Matrix, side: int) -> Crop:
    """Warps a photo to a square crop; where that shrinks it, source pixels are averaged.

    Borders are replicated, as nothing black should be learnt.
    """
    scale = float(np.hypot(crop_from_photo[0, 0], crop_from_photo[1, 0]))
    matrix = crop_from_photo
    if scale < 0.8:
        factor = scale / 0.9
        width = max(1, round(photo.shape[1] * factor))
        height = max(1, round(photo.shape[0] * factor))
        shrink = np.diag([width / photo.shape[1], height / photo.shape[0], 1.0])
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.linalg.inv(shrink)
    crop: Crop = cv2.warpAffine(
        photo, matrix[:2], (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop
