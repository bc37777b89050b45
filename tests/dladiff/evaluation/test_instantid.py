"""InstantID in its published layout, on real classes at tiny size, and what it is shown."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection

from dladiff.config import EncoderSettings, ModelSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.errors import ModelError
from dladiff.evaluation.attacks.attack import untouched_images, zero_shot_attack
from dladiff.evaluation.attacks.instantid import draw_keypoints, load_identity_net
from dladiff.evaluation.attacks.zero_shot import FaceAdapter, ToldFaces, begin_zero_shot, read_faces
from dladiff.evaluation.settings import AttackSettings, attack_settings
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from tests.tiny_adapters import write_adapter, write_identity_net, write_instantid
from tests.tiny_models import write_clip_vision, write_xl_checkpoint

SFACE_DIM = 128


@pytest.fixture(scope="module")
def xl_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    return ModelSettings(checkpoint=str(write_xl_checkpoint(tmp_path_factory.mktemp("xl"))))


@pytest.fixture(scope="module")
def xl(xl_settings: ModelSettings) -> DiffusionModel:
    return load_diffusion_model(xl_settings, "cpu", accepts_xl=True)


@pytest.fixture(scope="module")
def instantid(
    tmp_path_factory: pytest.TempPathFactory, xl: DiffusionModel, sface: IdentityEncoder
) -> FaceAdapter:
    folder = tmp_path_factory.mktemp("instantid")
    path = write_instantid(folder / "ip-adapter.safetensors", xl.unet, SFACE_DIM)
    net = load_identity_net(write_identity_net(folder / "ControlNetModel", xl.unet), "cpu")
    return FaceAdapter(path, sface, identity_net=net)


@pytest.fixture(scope="module")
def told(instantid: FaceAdapter, detector: FaceDetector, astronaut: Image) -> ToldFaces:
    """A face, and its mirror image."""
    photo = np.ascontiguousarray(astronaut[:224, 110:334])
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    faces = [detector.detect(image)[0] for image in (photo, mirrored)]
    return read_faces(instantid, list(zip((photo, mirrored), faces, strict=True)), "cpu")


def few_steps(**changes: object) -> AttackSettings:
    values = attack_settings("zero_shot", aligned_faces=False).model_dump()
    steps = {"num_images": 3, "num_inference_steps": 2, "adapter_scale": 0.8}
    return AttackSettings(**(values | steps | changes))


def test_keypoints_are_drawn_where_the_published_network_expects_them() -> None:
    landmarks = np.array([[400, 400], [600, 404], [500, 500], [420, 620], [580, 620]], np.float32)
    image = draw_keypoints(landmarks, 1024)[0]
    colours = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]]
    for (x, y), colour in zip(landmarks.astype(int), colours, strict=True):
        assert image[:, y, x].tolist() == colour
        assert image[:, y, x - 10].tolist() == colour
        assert image[:, y, x - 12].tolist() in ([0, 0, 0], [0.6 * value for value in colour])
    assert torch.allclose(image[:, 450, 450], torch.tensor([0.6, 0, 0]))  # left eye to nose
    assert image[:, 300, 300].sum() == 0


def test_what_is_drawn_scales_with_the_image() -> None:
    landmarks = np.array([[400, 400], [600, 400], [500, 500], [420, 620], [580, 620]], np.float32)
    drawn = [draw_keypoints(landmarks * scale, 1024 * scale) for scale in (1, 3)]
    shares = [float((image.amax(dim=1) > 0).float().mean()) for image in drawn]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)


def test_the_embedding_is_told_at_its_own_length(told: ToldFaces) -> None:
    assert told.embeds.shape == (2, SFACE_DIM)
    assert (told.embeds.norm(dim=1) - 1).abs().min() > 0.1
    assert told.keypoints is not None
    assert told.keypoints.shape == (2, 3, 224, 224)


def test_tokens_are_those_of_the_published_resampler(
    xl: DiffusionModel, instantid: FaceAdapter
) -> None:
    projection = begin_zero_shot(xl, instantid).unet.encoder_hid_proj.image_projection_layers[0]
    assert isinstance(projection, IPAdapterPlusImageProjection)
    assert projection(torch.zeros(1, 1, SFACE_DIM)).shape == (1, 16, 64)


def test_the_image_depends_on_who_it_is_and_on_where_the_face_lies(
    xl: DiffusionModel, instantid: FaceAdapter, told: ToldFaces
) -> None:
    assert told.keypoints is not None
    images = zero_shot_attack(xl, instantid, told, few_steps())
    assert images.shape == (3, 3, 128, 128)
    other_face = ToldFaces(told.embeds.flip(0), keypoints=told.keypoints)
    other_place = ToldFaces(told.embeds, keypoints=told.keypoints.flip(0))
    for other in (other_face, other_place):
        assert not torch.allclose(images, zero_shot_attack(xl, instantid, other, few_steps()))


def test_the_control_network_reads_the_face_and_not_the_prompt(
    xl: DiffusionModel, instantid: FaceAdapter, told: ToldFaces
) -> None:
    net = instantid.identity_net
    assert net is not None
    read = []
    handle = (
        net.down_blocks[0]
        .attentions[0]
        .transformer_blocks[0]
        .attn2.to_k.register_forward_hook(
            lambda module, arguments, output: read.append(arguments[0])
        )
    )
    zero_shot_attack(xl, instantid, told, few_steps(num_images=2))
    handle.remove()
    assert {tuple(tokens.shape) for tokens in read} == {(2, 16, 64)}  # nobody, then the face
    assert net.face_tokens is None  # of a person whose attack is over
    nobody, face = read[0]
    assert not torch.allclose(nobody, face)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_images_made_together_are_those_made_one_by_one(
    guidance_scale: float, xl: DiffusionModel, instantid: FaceAdapter, told: ToldFaces
) -> None:
    together, alone = (
        zero_shot_attack(
            xl, instantid, told, few_steps(images_per_batch=size, guidance_scale=guidance_scale)
        )
        for size in (2, 1)
    )
    assert torch.allclose(together, alone, atol=1e-4)


def test_face_id_and_no_adapter_sample_from_xl_too(
    tmp_path: Path, xl: DiffusionModel, sface: IdentityEncoder, told: ToldFaces
) -> None:
    plain = FaceAdapter(write_adapter(tmp_path / "plain.safetensors", xl.unet, SFACE_DIM), sface)
    images = zero_shot_attack(xl, plain, ToldFaces(told.embeds), few_steps())
    assert images.shape == (3, 3, 128, 128)
    untouched = untouched_images(xl, few_steps(num_images=3))
    assert not torch.allclose(images, untouched)


def test_face_id_plus_samples_from_xl_too(
    tmp_path: Path, xl: DiffusionModel, sface: IdentityEncoder, told: ToldFaces
) -> None:
    tower = EncoderSettings(
        name="clip", kind="clip", path=str(write_clip_vision(tmp_path / "clip", hidden_size=16))
    )
    path = write_adapter(tmp_path / "plus.safetensors", xl.unet, SFACE_DIM, clip_dim=16)
    plus = FaceAdapter(path, sface, load_identity_encoder(tower, "cpu"))
    looks = torch.randn(2, 17, 16, generator=torch.Generator().manual_seed(0))
    faces = ToldFaces(told.embeds, looks, torch.zeros(1, 17, 16))
    images = zero_shot_attack(xl, plus, faces, few_steps())
    assert images.shape == (3, 3, 128, 128)
    others = ToldFaces(told.embeds, looks.flip(0), faces.blank)
    assert not torch.allclose(images, zero_shot_attack(xl, plus, others, few_steps()))


def test_instantid_needs_its_own_file_its_encoder_and_xl(
    tmp_path: Path,
    xl: DiffusionModel,
    diffusion: DiffusionModel,
    instantid: FaceAdapter,
    sface: IdentityEncoder,
    told: ToldFaces,
) -> None:
    plain = write_adapter(tmp_path / "plain.safetensors", xl.unet, SFACE_DIM)
    swapped = FaceAdapter(plain, sface, identity_net=instantid.identity_net)
    with pytest.raises(ModelError, match="a FaceID file, but an InstantID file"):
        zero_shot_attack(xl, swapped, told, few_steps())
    with pytest.raises(ModelError, match="an InstantID file, but a FaceID file"):
        zero_shot_attack(xl, FaceAdapter(instantid.path, sface), told, few_steps())
    with pytest.raises(ModelError, match="Stable Diffusion XL only"):
        zero_shot_attack(diffusion, instantid, told, few_steps())
    narrow = ToldFaces(told.embeds[:, :100], keypoints=told.keypoints)
    with pytest.raises(ModelError, match="of 128 numbers, but encoder 'sface' gives 100"):
        zero_shot_attack(xl, instantid, narrow, few_steps())


def test_a_folder_without_a_control_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as a ControlNet"):
        load_identity_net(tmp_path, "cpu")


def test_a_surrogate_of_xl_is_refused(xl_settings: ModelSettings) -> None:
    with pytest.raises(ModelError, match=r"cannot be layer 1's surrogate.*autoencoders"):
        load_diffusion_model(xl_settings, "cpu")
