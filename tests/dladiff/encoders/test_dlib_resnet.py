"""dlib's encoder: as dlib computes it, on real people, differentiable, refused when damaged."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

from dladiff import weight_files
from dladiff.config import EncoderSettings
from dladiff.encoders.dlib_resnet import DlibResNet, load_dlib_resnet
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.errors import ModelError
from dladiff.face_detection import FaceDetector
from dladiff.faces import crop_from_photo, warp
from dladiff.image_values import image_to_tensor
from dladiff.weight_files import DLIB_RESNET

# Of ``waves()`` by dlib 20.0.1 (the wheel ``dlib-bin``), from the file that was converted:
#     model = dlib.face_recognition_model_v1("dlib_face_recognition_resnet_model_v1.dat")
#     print(model.compute_face_descriptor(waves()))
DESCRIPTOR_BY_DLIB = [
    -0.075256, 0.136633, 0.046606, 0.022010, -0.038340, -0.097347, -0.021257, -0.056205,
    0.124441, -0.023410, 0.274828, -0.018911, -0.201734, -0.104865, 0.002053, 0.062871,
    -0.153134, -0.084781, -0.104647, -0.144081, 0.033235, 0.001190, 0.037971, 0.004250,
    -0.149516, -0.269633, -0.084269, -0.156537, 0.107992, -0.135758, 0.008571, 0.079105,
    -0.158077, -0.083651, -0.034497, -0.015169, 0.014356, -0.012335, 0.177280, 0.025077,
    -0.095817, -0.019806, -0.048661, 0.330445, 0.238394, 0.019753, 0.003389, -0.036209,
    0.040052, -0.254786, 0.018967, 0.179461, 0.070807, 0.085485, 0.031663, -0.132036,
    0.005462, 0.088573, -0.172479, 0.052824, 0.038749, -0.087671, -0.070752, -0.084427,
    0.205626, 0.074972, -0.059950, -0.105642, 0.149615, -0.139138, -0.019058, 0.117736,
    -0.141139, -0.186960, -0.204075, 0.117641, 0.394065, 0.209537, -0.151800, 0.035433,
    -0.163221, -0.019870, 0.050949, -0.029111, -0.075670, -0.040059, -0.097406, 0.060725,
    0.137630, -0.068150, -0.029404, 0.201371, -0.035461, 0.025026, 0.015972, -0.053549,
    -0.071409, 0.042311, -0.083252, -0.035914, 0.083322, -0.133329, 0.026648, 0.075682,
    -0.144066, 0.114811, 0.024776, -0.002087, 0.026616, 0.013221, -0.047499, -0.055440,
    0.206833, -0.230946, 0.230795, 0.223154, 0.042692, 0.148240, 0.035418, 0.109510,
    -0.052182, -0.025221, -0.116732, -0.011006, 0.037170, -0.008630, -0.014146, -0.008304,
]  # fmt: skip

ATOL = 5e-4
"""The weights are stored in fp16: up to 4e-4 between embeddings in fp16 and fp32 on real chips."""


def waves() -> np.ndarray:
    """A deterministic chip, uint8 (150, 150, 3)."""
    y, x = np.mgrid[0:150, 0:150].astype(np.float64)
    channels = [
        127.5
        + 100 * np.sin((x * (index + 1) + y * (3 - index)) / (11 + 4 * index))
        * np.cos(x / (23 + index))
        for index in range(3)
    ]  # fmt: skip
    chip: np.ndarray = np.floor(np.stack(channels, axis=-1)).astype(np.uint8)
    return chip


@pytest.fixture(scope="module")
def encoder() -> IdentityEncoder:
    return load_identity_encoder(EncoderSettings(name="dlib", kind="dlib_resnet"), "cpu")


def test_descriptors_are_dlibs_own() -> None:
    network = load_dlib_resnet(DLIB_RESNET)
    network.centre.zero_()
    descriptor = network(image_to_tensor(waves()))[0].numpy()
    np.testing.assert_allclose(descriptor, DESCRIPTOR_BY_DLIB, atol=ATOL)


def test_embeddings_are_dlibs_descriptors_less_the_shipped_centre(
    encoder: IdentityEncoder,
) -> None:
    assert isinstance(encoder.network, DlibResNet)
    centred = np.array(DESCRIPTOR_BY_DLIB) - encoder.network.centre.numpy()
    embeds = encoder.embed(image_to_tensor(waves()))[0].numpy()
    np.testing.assert_allclose(embeds, centred / np.linalg.norm(centred), atol=ATOL)


def test_it_tells_the_same_person_from_others(
    shared_data: Path, encoder: IdentityEncoder, detector: FaceDetector
) -> None:
    people = sorted((shared_data / "lfw12").iterdir())[:6]
    chips = []
    for file in (file for person in people for file in sorted(person.glob("*.jpg"))[:3]):
        with PIL.Image.open(file) as photo:
            image = np.array(photo)
        photo_from_chip = np.linalg.inv(
            crop_from_photo(detector.detect(image)[0], encoder.template)
        )
        chips.append(warp(image_to_tensor(image), photo_from_chip, encoder.side))
    embeds = torch.cat([encoder.embed(chip) for chip in chips])
    cosines = embeds @ embeds.T
    person = torch.arange(18) // 3
    is_same = person[:, None] == person
    same = cosines[is_same & ~torch.eye(18, dtype=torch.bool)]
    other = cosines[~is_same]
    assert float(same.mean()) > 0.6
    assert abs(float(other.mean())) < 0.2
    assert float((same[:, None] > other).float().mean()) > 0.99  # AUC


def test_the_gradient_reaches_the_pixels_and_agrees_with_finite_differences() -> None:
    encoder = load_identity_encoder(EncoderSettings(name="dlib", kind="dlib_resnet"), "cpu")
    encoder.network.double()
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    chip = image_to_tensor(waves()).double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(encoder.embed(chip)[0, 3], chip)
    assert float((gradient != 0).double().mean()) > 0.9
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(chip.shape, dtype=torch.float64, generator=generator)
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (encoder.embed(chip + sign * step * direction)[0, 3] for sign in (1, -1))
    slope = float((gradient * direction).sum())
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-3)


def test_a_missing_file_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "DLIB_RESNET", tmp_path / "dlib_resnet.safetensors")
    with pytest.raises(ModelError, match="missing: reinstall dladiff"):
        load_identity_encoder(EncoderSettings(name="dlib", kind="dlib_resnet"), "cpu")


@pytest.mark.parametrize("length", [0, 100, 1_000_000])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "dlib_resnet.safetensors"
    path.write_bytes(DLIB_RESNET.read_bytes()[:length])
    with pytest.raises(ModelError, match="damaged or another model"):
        load_dlib_resnet(path)


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dlib_resnet.safetensors"
    weights = load_file(DLIB_RESNET)
    save_file({**weights, "centre": torch.zeros(64)}, path)
    with pytest.raises(ModelError, match="damaged or another model"):
        load_dlib_resnet(path)
    del weights["projection"]
    save_file(weights, path)
    with pytest.raises(ModelError, match="damaged or another model"):
        load_dlib_resnet(path)
