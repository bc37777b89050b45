"""Real photos and data that several tests read.

Imports of ``dladiff`` stand inside the fixtures: this file is read before pytest's jaxtyping hook
is in place, and a module imported here would go unchecked in all tests.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
import skimage.data
import torch

if TYPE_CHECKING:
    from dladiff.encoders.identity_encoders import IdentityEncoder
    from dladiff.face_detection import FaceDetector


# What an example takes says more of a busy machine than of the code; pytest has a timeout anyway.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing by threads, and on a busy machine threads wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photos and models beside the checkout; tests skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real photo with one face, uint8 (512, 512, 3), public domain (NASA)."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def detector() -> "FaceDetector":
    """YuNet with default settings."""
    from dladiff.config import FaceDetectorSettings
    from dladiff.face_detection import load_face_detector

    return load_face_detector(FaceDetectorSettings())


@pytest.fixture(scope="session")
def sface(tmp_path_factory: pytest.TempPathFactory) -> "IdentityEncoder":
    """SFace on the CPU, from a cache of this test run."""
    from dladiff.config import EncoderSettings
    from dladiff.encoders.identity_encoders import load_identity_encoder

    settings = EncoderSettings(name="sface", kind="sface")
    return load_identity_encoder(settings, "cpu", tmp_path_factory.mktemp("models"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests proved nothing here, since a skip is silent otherwise."""
    skipped = terminalreporter.stats.get("skipped", [])
    without_data = [one for one in skipped if "no test data at" in str(one.longrepr)]
    if without_data:
        terminalreporter.write_line(
            f"{len(without_data)} tests did not run: they need the data in ../shared",
            yellow=True,
        )
