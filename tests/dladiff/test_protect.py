"""The whole method without a diffusion model: photos in, protected photos and numbers out."""

import numpy as np
import pytest
import torch

from dladiff.config import MethodSettings, preset_settings
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from dladiff.models import ProtectionModels
from dladiff.protect import protect_photo_set
from dladiff.results import Photo, SetResult


@pytest.fixture(scope="module")
def models(detector: FaceDetector, sface: IdentityEncoder) -> ProtectionModels:
    return ProtectionModels(
        torch.device("cpu"), detector, [sface], [], load_diffusion=None, lpips=None
    )


@pytest.fixture(scope="module")
def config() -> MethodSettings:
    return preset_settings("zero-shot").changed("loop.num_steps=16", "loop.step_size_levels=2")


@pytest.fixture(scope="module")
def photos(astronaut: Image) -> list[Photo]:
    face = np.ascontiguousarray(astronaut[:256, 110:334])
    return [Photo("face", face), Photo("wall", np.full((90, 120, 3), 130, np.uint8))]


@pytest.fixture(scope="module")
def result(photos: list[Photo], models: ProtectionModels, config: MethodSettings) -> SetResult:
    return protect_photo_set(photos, [], models, config)


def test_a_photo_with_a_face_is_protected_within_the_budget(result: SetResult) -> None:
    photo = result.photos[0]
    assert photo.status == "protected"
    assert photo.image is not None
    assert photo.image.shape == (256, 224, 3)
    assert photo.max_change_levels is not None
    assert 8 <= photo.max_change_levels <= 11
    assert photo.max_change_levels_outside_faces == 0
    (cosine,) = photo.identity_cosines
    assert cosine.before > 0.9
    assert cosine.after < 0.1
    assert cosine.after_handling < 0.5
    assert photo.target_met is True
    assert photo.stop_reason == "num_steps"
    assert photo.psnr_db is not None
    assert photo.psnr_db > 28


def test_a_photo_without_a_face_is_skipped_with_its_reason(result: SetResult) -> None:
    photo = result.photos[1]
    assert (photo.status, photo.reason) == ("skipped", "no_face")
    assert photo.image is None


def test_the_cost_is_counted(result: SetResult) -> None:
    assert result.cost.encoder_passes == 16
    assert {"detect", "layer2", "measure"} <= result.cost.seconds.keys()


def test_the_same_photo_alone_gets_the_same_bytes(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings, result: SetResult
) -> None:
    stages: list[str] = []
    again = protect_photo_set(
        photos[:1], [], models, config, lambda stage, fraction: stages.append(stage)
    )
    one, other = again.photos[0].image, result.photos[0].image
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other)
    assert {"layer2", "measure"} <= set(stages)
