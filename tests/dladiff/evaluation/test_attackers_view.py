"""How an attacker crops."""

import numpy as np
import pytest

from dladiff.config import FaceDetectorSettings
from dladiff.evaluation.attackers_view import attackers_crop, find_face
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.recoding import half_size

TEMPLATE = np.array([[0.355, 0.45], [0.645, 0.45], [0.5, 0.61], [0.38, 0.755], [0.62, 0.755]])


def test_landmarks_of_the_warped_face_lie_at_the_template(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    face = find_face(detector, astronaut)
    crop = attackers_crop(astronaut, face, "template", 128, TEMPLATE)
    assert crop.shape == (128, 128, 3)
    found = find_face(detector, crop)
    assert found is not None
    assert np.abs(found.landmarks - TEMPLATE * 128).max() < 8


def test_a_face_that_is_hidden_is_cropped_where_it_is_on_the_clean_photo(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    on_clean = find_face(detector, astronaut)
    hidden = half_size(np.full_like(astronaut, 90))
    assert find_face(detector, hidden) is None
    carried = find_face(detector, hidden, astronaut)
    assert on_clean is not None
    assert carried is not None
    assert carried.landmarks == pytest.approx(on_clean.landmarks / 2, abs=0.5)


def test_the_whole_view_is_the_middle_square() -> None:
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[:, 20:60] = 255
    assert attackers_crop(photo, None, "whole", 32).min() > 250


def test_the_face_view_is_wider_than_the_face_box_and_inside_the_photo(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    face = find_face(detector, astronaut)
    crop = attackers_crop(astronaut, face, "face", 96)
    again = load_face_detector(FaceDetectorSettings()).detect(crop)[0]
    left, top, right, bottom = again.box
    assert max(right - left, bottom - top) * 1.6 == pytest.approx(96, rel=0.15)


def test_views_of_faces_need_a_face_and_a_template() -> None:
    photo = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="no face was found"):
        attackers_crop(photo, None, "face", 32)


def test_the_template_view_needs_a_checkpoint_of_aligned_faces(
    astronaut: np.ndarray, detector: FaceDetector
) -> None:
    with pytest.raises(ValueError, match=r"face_template\.json"):
        attackers_crop(astronaut, find_face(detector, astronaut), "template", 32)
