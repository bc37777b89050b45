"""Real photos and data that several tests read."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from dladiff.config import EncoderSettings, FaceDetectorSettings
from dladiff.faces import FaceDetector, load_face_detector
from dladiff.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.image_values import Image


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """Tests compute as a worker does, and leave the machine's other cores alone."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photos and models beside the checkout; tests skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> Image:
    """A real photo with one face, 512x512, public domain (NASA)."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    """YuNet with default settings."""
    return load_face_detector(FaceDetectorSettings())


@pytest.fixture(scope="session")
def sface(tmp_path_factory: pytest.TempPathFactory) -> IdentityEncoder:
    """SFace on the CPU, from a cache of this test run."""
    settings = EncoderSettings(name="sface", kind="sface")
    return load_identity_encoder(settings, "cpu", tmp_path_factory.mktemp("models"))
