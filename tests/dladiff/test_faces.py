"""Detection on a real photo, the similarity transform and the warp, against OpenCV."""

import importlib.util

import cv2
import numpy as np
import pytest
import skimage.transform
import torch

from dladiff.config import FaceDetectorSettings
from dladiff.errors import ModelError
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.faces import (
    ARCFACE_TEMPLATE,
    crop_from_photo,
    estimate_similarity,
    rescaled,
    warp,
    warp_prefiltered,
)
from dladiff.image_values import Image, image_to_tensor


def test_the_face_is_found_with_its_landmarks_left_to_right(
    detector: FaceDetector, astronaut: Image
) -> None:
    (face,) = detector.detect(astronaut)
    left, top, right, bottom = face.box
    assert 150 < left < right < 320
    assert 40 < top < bottom < 230
    left_eye, right_eye, nose, left_corner, right_corner = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_corner[0] < right_corner[0]
    assert left_eye[1] < nose[1] < left_corner[1]


def test_faces_come_largest_first_and_at_most_as_many_as_configured(astronaut: Image) -> None:
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    both = np.zeros((512, 768, 3), np.uint8)
    both[:256, :256] = small
    both[:, 256:] = astronaut
    faces = load_face_detector(FaceDetectorSettings()).detect(both)
    assert len(faces) == 2
    assert faces[0].box[0] > 256 > faces[1].box[2]
    assert len(load_face_detector(FaceDetectorSettings(max_faces=1)).detect(both)) == 1
    side = faces[1].box[2] - faces[1].box[0]
    large_only = load_face_detector(FaceDetectorSettings(min_size_px=int(side) + 20))
    assert len(large_only.detect(both)) == 1


def test_a_crop_so_tight_that_the_head_is_cut_still_has_its_face(
    detector: FaceDetector, astronaut: Image
) -> None:
    (face,) = detector.detect(astronaut)
    left, top, right, bottom = (round(edge) for edge in face.box)
    tight = np.ascontiguousarray(astronaut[top + 8 : bottom - 4, left + 4 : right - 4])
    (again,) = detector.detect(tight)
    shifted = again.landmarks + np.array([left + 4, top + 8], np.float32)
    assert np.abs(shifted - face.landmarks).max() < 8


def test_landmarks_of_a_large_photo_are_those_of_the_small_one(
    detector: FaceDetector, astronaut: Image
) -> None:
    (face,) = detector.detect(astronaut)
    large = cv2.resize(astronaut, (2560, 2560), interpolation=cv2.INTER_CUBIC)
    (found,) = detector.detect(large)
    expected = rescaled(face, 5.0)
    # YuNet itself wavers by a few pixels of a face of 90 between sizes.
    height = expected.box[3] - expected.box[1]
    assert np.abs(found.landmarks - expected.landmarks).max() < 0.07 * height


def test_a_photo_without_a_face_gives_none(detector: FaceDetector) -> None:
    assert detector.detect(np.full((120, 90, 3), 127, np.uint8)) == []


@pytest.mark.skipif(
    importlib.util.find_spec("insightface") is not None, reason="insightface is installed"
)
def test_insightface_without_its_package_is_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"pip install 'dladiff\[insightface\]'"):
        load_face_detector(FaceDetectorSettings(kind="insightface", pack="buffalo_l"))


def test_similarity_agrees_with_scikit_image(detector: FaceDetector, astronaut: Image) -> None:
    (face,) = detector.detect(astronaut)
    reference = skimage.transform.SimilarityTransform.from_estimate(
        face.landmarks, ARCFACE_TEMPLATE
    )
    np.testing.assert_allclose(crop_from_photo(face), reference.params, atol=1e-4)


def test_similarity_recovers_a_known_transform() -> None:
    turn = np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -2.0], [0, 0, 1]])
    points = np.column_stack([ARCFACE_TEMPLATE, np.ones(5)]) @ turn.T
    np.testing.assert_allclose(
        estimate_similarity(ARCFACE_TEMPLATE, points[:, :2]), turn, atol=1e-9
    )


def test_warp_agrees_with_opencv_to_half_a_cell(detector: FaceDetector, astronaut: Image) -> None:
    (face,) = detector.detect(astronaut)
    matrix = crop_from_photo(face)
    warped = warp(image_to_tensor(astronaut), np.linalg.inv(matrix), 112)[0] * 255
    ours = warped.permute(1, 2, 0).numpy()
    expected = cv2.warpAffine(astronaut, matrix[:2], (112, 112)).astype(np.float32)
    error = np.abs(ours - expected).mean()
    # OpenCV rounds positions to 1/32 pixel; a shift by half a pixel would cost far more.
    assert error < 0.7
    shifted = matrix.copy()
    shifted[:2, 2] += 0.5
    other = cv2.warpAffine(astronaut, shifted[:2], (112, 112)).astype(np.float32)
    assert np.abs(ours - other).mean() > 4 * error


def test_warp_outside_the_photo_is_black_as_opencvs() -> None:
    white = np.full((20, 30, 3), 255, np.uint8)
    matrix = np.array([[1.0, 0, 7], [0, 1.0, 9], [0, 0, 1]])
    ours = warp(image_to_tensor(white), np.linalg.inv(matrix), 40)[0].permute(1, 2, 0).numpy()
    expected = cv2.warpAffine(white, matrix[:2], (40, 40)) / 255
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_prefiltered_warp_sees_every_pixel_and_the_plain_one_few(astronaut: Image) -> None:
    photo = image_to_tensor(astronaut).requires_grad_(True)
    photo_from_crop = np.array([[12.0, 0, 20], [0, 12.0, 20], [0, 0, 1]])
    shares = []
    for sample in (warp, warp_prefiltered):
        (gradient,) = torch.autograd.grad(sample(photo, photo_from_crop, 40).sum(), photo)
        shares.append(float((gradient[..., 30:470, 30:470] != 0).float().mean()))
    assert shares[0] < 0.1
    assert shares[1] > 0.99
