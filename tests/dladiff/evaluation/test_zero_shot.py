"""Adapters of the FaceID family in the published layouts, on real classes at tiny size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dladiff.config import EncoderSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.errors import ModelError
from dladiff.evaluation.attacks.attack import zero_shot_attack
from dladiff.evaluation.attacks.zero_shot import FaceAdapter, ToldFaces, read_faces
from dladiff.evaluation.settings import AttackSettings, attack_settings
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from tests.tiny_adapters import write_adapter
from tests.tiny_models import write_clip_vision

SFACE_DIM, CLIP_DIM = 128, 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> IdentityEncoder:
    folder = write_clip_vision(tmp_path_factory.mktemp("clip"), hidden_size=CLIP_DIM)
    return load_identity_encoder(EncoderSettings(name="clip", kind="clip", path=str(folder)), "cpu")


@pytest.fixture(scope="module")
def plus(
    tmp_path_factory: pytest.TempPathFactory,
    diffusion: DiffusionModel,
    sface: IdentityEncoder,
    clip: IdentityEncoder,
) -> FaceAdapter:
    path = tmp_path_factory.mktemp("plus") / "plus.safetensors"
    return FaceAdapter(write_adapter(path, diffusion.unet, SFACE_DIM, CLIP_DIM), sface, clip)


@pytest.fixture(scope="module")
def told(plus: FaceAdapter, detector: FaceDetector, astronaut: Image) -> ToldFaces:
    """The face, and the same face darker."""
    photo = np.ascontiguousarray(astronaut[:256, 110:334])
    (face, *_) = detector.detect(photo)
    return read_faces(plus, [(photo, face), (photo // 2, face)], "cpu")


def few_steps(**changes: object) -> AttackSettings:
    values = attack_settings("zero_shot", aligned_faces=True).model_dump()
    steps = {"num_images": 5, "num_inference_steps": 2, "images_per_batch": 2}
    return AttackSettings(**(values | steps | changes))


def test_plus_reads_clips_tokens_of_each_face_beside_the_recognisers_embedding(
    told: ToldFaces,
) -> None:
    assert told.embeds.shape == (2, SFACE_DIM)
    assert told.looks is not None
    assert told.blank is not None
    assert told.looks.shape == (2, 17, CLIP_DIM)  # 16 patches and the class
    assert told.blank.shape == (1, 17, CLIP_DIM)
    assert not torch.allclose(told.looks[0], told.looks[1], atol=1e-3)


def test_the_image_depends_on_what_either_encoder_reads(
    diffusion: DiffusionModel, plus: FaceAdapter, told: ToldFaces
) -> None:
    assert told.looks is not None
    images = zero_shot_attack(diffusion, plus, told, few_steps())
    assert images.shape == (5, 3, 32, 32)
    other_look = ToldFaces(told.embeds, told.looks.flip(0), told.blank)
    other_name = ToldFaces(told.embeds.neg(), told.looks, told.blank)
    for other in (other_look, other_name):
        assert not torch.allclose(images, zero_shot_attack(diffusion, plus, other, few_steps()))


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_images_made_together_are_those_made_one_by_one(
    guidance_scale: float, diffusion: DiffusionModel, plus: FaceAdapter, told: ToldFaces
) -> None:
    together, alone = (
        zero_shot_attack(
            diffusion,
            plus,
            told,
            few_steps(images_per_batch=size, guidance_scale=guidance_scale),
        )
        for size in (3, 1)
    )
    assert torch.allclose(together, alone, atol=1e-4)


def test_plus_v2_adds_the_embedding_once_more(
    diffusion: DiffusionModel, plus: FaceAdapter, told: ToldFaces
) -> None:
    v2 = FaceAdapter(plus.path, plus.encoder, plus.clip, has_shortcut=True)
    first, second = (zero_shot_attack(diffusion, each, told, few_steps()) for each in (plus, v2))
    assert not torch.allclose(first, second)


def test_the_lora_of_a_published_file_counts(
    tmp_path: Path, diffusion: DiffusionModel, sface: IdentityEncoder, told: ToldFaces
) -> None:
    faces = ToldFaces(told.embeds)
    images = []
    for with_lora in (False, True):
        path = tmp_path / f"{with_lora}.safetensors"
        write_adapter(path, diffusion.unet, SFACE_DIM, with_lora=with_lora)
        images.append(zero_shot_attack(diffusion, FaceAdapter(path, sface), faces, few_steps()))
    plain, with_its_lora = images
    assert not torch.allclose(plain, with_its_lora)
    assert not hasattr(diffusion.unet, "peft_config")


def test_a_file_of_the_other_kind_is_refused(
    tmp_path: Path, diffusion: DiffusionModel, plus: FaceAdapter, told: ToldFaces
) -> None:
    plain = write_adapter(tmp_path / "plain.safetensors", diffusion.unet, SFACE_DIM)
    for wrong in (
        FaceAdapter(plain, plus.encoder, plus.clip),
        FaceAdapter(plus.path, plus.encoder),
    ):
        with pytest.raises(ModelError, match="--adapter-kind"):
            zero_shot_attack(diffusion, wrong, told, few_steps())
