"""Judges on real faces."""

import numpy as np
import pytest

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.evaluation.handlings import smoothed
from dladiff.evaluation.judges import Panel, Seen, embed_face
from dladiff.face_detection import FaceDetector


@pytest.fixture
def panel(detector: FaceDetector, sface: IdentityEncoder) -> Panel:
    return Panel(detector, [sface])


def test_a_photo_is_like_its_own_smoothed_copy_and_no_face_counts_as_zero(
    panel: Panel, astronaut: np.ndarray
) -> None:
    nobody = np.full((96, 80, 3), 127, np.uint8)
    seen = panel.look([astronaut, smoothed(astronaut), nobody])["sface"]
    reference = panel.look([astronaut])["sface"].reference
    cosines = seen.cosines(reference)
    assert seen.found.tolist() == [True, True, False]
    assert cosines[0] == pytest.approx(1, abs=1e-4)
    assert cosines[1] > 0.6
    assert cosines[2] == 0


def test_the_reference_is_the_unit_mean_of_the_faces_found() -> None:
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    seen = Seen(embeddings, np.array([True, True, False]))
    assert seen.reference == pytest.approx(np.array([1, 1]) / np.sqrt(2))


def test_people_without_any_face_in_their_reference_are_refused() -> None:
    with pytest.raises(ValueError, match="no face was found in any reference photo"):
        _ = Seen(np.zeros((2, 4)), np.array([False, False])).reference


def test_the_embedding_of_a_face_has_unit_length(
    panel: Panel, astronaut: np.ndarray, sface: IdentityEncoder
) -> None:
    face = panel.detector.detect(astronaut)[0]
    assert np.linalg.norm(embed_face(sface, astronaut, face)) == pytest.approx(1, abs=1e-5)


def test_images_without_any_face_are_like_nobody(panel: Panel, astronaut: np.ndarray) -> None:
    reference = panel.look([astronaut])["sface"].reference
    nobody = [np.full((96, 80, 3), level, np.uint8) for level in (60, 200)]
    assert panel.look(nobody)["sface"].cosines(reference).tolist() == [0, 0]
