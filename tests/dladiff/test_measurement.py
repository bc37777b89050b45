"""Measuring on the rounded photo: levels by mask, cosines after finding the face anew."""

import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from dladiff.config import ModelSettings
from dladiff.diffusion.checkpoint import load_autoencoder
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector, FoundFaces
from dladiff.image_values import Image
from dladiff.measurement import measure_photo
from dladiff.models import ProtectionModels
from dladiff.recoding import half_size, jpeg
from dladiff.results import Face


class NothingFound:
    """A detector that a perturbation has blinded."""

    def find(self, image: Image) -> FoundFaces:
        return FoundFaces([])

    def detect(self, image: Image) -> list[Face]:
        return []


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> Image:
    return np.ascontiguousarray(astronaut[:256, 110:334])


@pytest.fixture(scope="module")
def masked(portrait: Image, detector: FaceDetector) -> Face:
    (face,) = detector.detect(portrait)
    return replace(face, mask_extent=(40, 30, 190, 200))


def _models(detector: FaceDetector, *encoders: IdentityEncoder) -> ProtectionModels:
    return ProtectionModels(
        torch.device("cpu"), detector, list(encoders), [], load_diffusion=None, lpips=None
    )


def test_an_unchanged_photo_keeps_its_identity_and_misses_the_target(
    portrait: Image, masked: Face, detector: FaceDetector, sface: IdentityEncoder
) -> None:
    result = measure_photo(portrait, portrait.copy(), [masked], _models(detector, sface), 0.1)
    (cosine,) = result.identity_cosines
    assert cosine.after == pytest.approx(1.0, abs=1e-4)
    assert cosine.before > 0.9
    assert cosine.after_handling > 0.7
    assert result.target_met is False
    assert result.max_change_levels == 0


def test_changes_are_counted_inside_and_outside_the_masks(
    portrait: Image, masked: Face, detector: FaceDetector
) -> None:
    changed = portrait.copy()
    changed[100, 100] = portrait[100, 100] ^ 8
    changed[10, 10] = np.where(portrait[10, 10] < 100, portrait[10, 10] + 3, portrait[10, 10] - 3)
    result = measure_photo(portrait, changed, [masked], _models(detector), 0.1)
    assert result.max_change_levels == 8
    assert result.max_change_levels_outside_faces == 3
    assert result.changed_pixels == pytest.approx(2 / (portrait.shape[0] * portrait.shape[1]))
    assert result.psnr_db > 50
    assert result.lpips is None


def test_where_no_face_is_found_the_clean_landmarks_serve_and_it_is_no_success(
    portrait: Image, masked: Face, sface: IdentityEncoder
) -> None:
    result = measure_photo(portrait, portrait.copy(), [masked], _models(NothingFound(), sface), 1.1)
    assert result.identity_cosines[0].after == pytest.approx(1.0, abs=1e-4)
    assert result.target_met is False


def test_the_target_counts_white_boxes_only(
    portrait: Image, masked: Face, detector: FaceDetector, sface: IdentityEncoder
) -> None:
    held_out = replace(sface, name="other", held_out=True)
    result = measure_photo(
        portrait, portrait.copy(), [masked], _models(detector, sface, held_out), 1.1
    )
    assert result.target_met is True
    assert [item.held_out for item in result.identity_cosines] == [False, True]


def test_what_the_autoencoder_shows_is_measured_as_well(
    portrait: Image, masked: Face, detector: FaceDetector, sface: IdentityEncoder
) -> None:
    embedded = load_autoencoder(ModelSettings(), "cpu")
    models = replace(_models(detector, sface), autoencoders=[embedded])
    result = measure_photo(portrait, portrait.copy(), [masked], models, 0.1)
    (seen,) = result.model_likeness
    # The reference autoencoder keeps most of a face, not all of it.
    assert 0.5 < seen.before < 0.95
    assert seen.after == pytest.approx(seen.before, abs=0.1)
    grey = measure_photo(portrait, np.full_like(portrait, 128), [masked], models, 0.1)
    assert grey.model_likeness[0].after < 0.3


def test_what_is_measured_is_what_a_png_gives_back(portrait: Image) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(portrait).save(buffer, format="PNG")
    assert np.array_equal(np.asarray(PIL.Image.open(buffer)), portrait)


def test_handling_halves_odd_sizes_and_loses_detail(portrait: Image) -> None:
    handled = jpeg(half_size(np.ascontiguousarray(portrait[:101, :77])))
    assert handled.shape in {(50, 38, 3), (51, 38, 3), (50, 39, 3), (51, 39, 3)}
    assert handled.dtype == np.uint8
