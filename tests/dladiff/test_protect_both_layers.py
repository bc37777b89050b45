"""Layer 1 and layer 2 together, on a tiny checkpoint and a real face."""

import numpy as np
import pytest
import torch

from dladiff.config import MethodSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from dladiff.methods.photo_latents import Looks
from dladiff.models import ProtectionModels
from dladiff.protect import protect_photo_set
from dladiff.results import Photo, SetResult


@pytest.fixture(scope="module")
def photos(astronaut: Image) -> list[Photo]:
    face = np.ascontiguousarray(astronaut[:181, 130:301])
    wall = np.full((50, 71, 3), 130, np.uint8)
    return [Photo("face", face), Photo("wall", wall)]


@pytest.fixture
def models(
    detector: FaceDetector, sface: IdentityEncoder, diffusion: DiffusionModel
) -> ProtectionModels:
    return ProtectionModels(
        torch.device("cpu"), detector, [sface], [diffusion], lambda: diffusion, lpips=None
    )


@pytest.fixture
def config(settings: MethodSettings) -> MethodSettings:
    steps = "surrogates.step_size_levels=3", "loop.num_steps=6", "loop.step_size_levels=3"
    return settings.changed(*steps, "loop.stop_cosine=null")


def only_against_fine_tuning(settings: MethodSettings) -> MethodSettings:
    """Without the settings of steps on crops, which nothing would read."""
    changes = "against=fine-tuning", "paper.crop=true", "surrogates.step_size_levels=3"
    return settings.changed(*changes)


def protect(
    photos: list[Photo], references: list[Photo], models: ProtectionModels, config: MethodSettings
) -> SetResult:
    return protect_photo_set(photos, references, models, config)


def test_both_layers_keep_their_budgets_and_all_numbers_are_filled(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    result = protect(photos, [], models, config)
    face, wall = result.photos
    assert (face.status, wall.status, wall.reason) == ("protected", "layer1_only", "no_face")
    for photo, clean in zip(result.photos, photos, strict=True):
        assert photo.image is not None
        assert photo.image.shape == clean.image.shape
        assert photo.max_change_levels_outside_faces == 7
    assert face.max_change_levels is not None
    assert 7 < face.max_change_levels <= 18
    assert wall.max_change_levels == 7
    numbers = [
        result.attention_loss_before,
        result.attention_loss_after,
        result.denoising_loss_before,
        result.denoising_loss_after,
        result.attention_loss_after_layer2,
        result.denoising_loss_after_layer2,
    ]
    assert all(number is not None and np.isfinite(number) for number in numbers)
    assert result.layer1_stop_reason == "all_epochs"
    stages = {"detect", "step0", "layer1", "layer2", "interplay", "measure"}
    assert set(result.cost.seconds) == stages
    assert result.cost.unet_forward_backward_pairs > 0
    assert result.cost.encoder_passes > 0
    assert models.load_diffusion is not None
    unet = models.load_diffusion().unet
    assert not any("lora" in name for name, _ in unet.named_modules())


def test_a_small_set_is_filled_up_with_references_for_step_0(
    photos: list[Photo],
    models: ProtectionModels,
    settings: MethodSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[int] = []

    def count(self: object, latents: torch.Tensor, *_: object) -> torch.Tensor:
        trained.append(len(latents))
        return latents.new_zeros(0)

    monkeypatch.setattr("dladiff.diffusion.fine_tuning.FineTuner.train", count)
    only_layer1 = only_against_fine_tuning(settings)
    references = [Photo(f"reference {n}", photos[1].image) for n in range(9)]
    protect(photos[:1], references, models, only_layer1)
    num_photos = only_layer1.num_references
    assert trained[0] == num_photos * Looks.of(only_layer1).num_views


def test_layer_1_alone_protects_every_photo_within_its_budget(
    photos: list[Photo], models: ProtectionModels, settings: MethodSettings
) -> None:
    only_layer1 = only_against_fine_tuning(settings)
    result = protect(photos, [], models, only_layer1)
    assert [photo.max_change_levels for photo in result.photos] == [7, 7]
    assert result.attention_loss_after_layer2 is None
