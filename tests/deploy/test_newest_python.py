"""The wheel on the newest Python that Debian has: pip installs it there, and it protects photos."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.built_wheel import PROTECT, ROOT, build_wheel
from tests.deploy.dockerfile import BareRoot, bare_root

SUITE, PYTHON = "trixie", "3.13"
BIN = "/opt/dladiff/bin"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]


def install(root: BareRoot, extra: str) -> None:
    """The wheel in ``/src`` with the versions that are tested on other Pythons."""
    options = ["--quiet", "--no-cache-dir", "--constraint", "/src/constraints.txt"]
    (wheel,) = (root.folder / "src").glob("*.whl")
    root.call([f"{BIN}/pip", "install", *options, f"/src/{wheel.name}{extra}"], timeout=5000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Iterator[BareRoot]:
    """A bare root with the wheel and its base install, and a photo in ``/photos/ada``."""
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    with bare_root(ROOT) as root:
        root.bootstrap(SUITE, "ca-certificates,python3,python3-venv")
        (root.folder / "src").mkdir()
        for path in (wheel, ROOT / "constraints.txt"):
            shutil.copy(path, root.folder / "src")
        album = root.folder / "photos/ada"
        album.mkdir(parents=True)
        Image.fromarray(astronaut[:256, 110:334]).save(album / "photo.png")
        root.call(["python3", "-m", "venv", "/opt/dladiff"])
        install(root, "")
        yield root


def largest_change(protected: Path, astronaut: np.ndarray) -> int:
    """In levels."""
    with Image.open(protected) as saved:
        change = np.abs(np.array(saved).astype(int) - astronaut[:256, 110:334])
    return int(change.max())


def test_the_base_install_protects_a_photo(root: BareRoot, astronaut: np.ndarray) -> None:
    version = root.call([f"{BIN}/python", "-c", "import sys; print(*sys.version_info[:2])"])
    assert version.split() == PYTHON.split(".")
    root.workdir = "/photos/ada"
    root.call([f"{BIN}/python", "-P", "-W", "error::SyntaxWarning", "-c", PROTECT], timeout=900)
    (root.folder / "photos/ada/protected.png").rename(root.folder / "photos/protected.png")
    assert 1 <= largest_change(root.folder / "photos/protected.png", astronaut) <= 18


def test_the_command_protects_a_photo(root: BareRoot, astronaut: np.ndarray) -> None:
    install(root, "[pipeline]")
    root.workdir = "/"
    few = ["--preset", "zero-shot", "--set", "loop.num_steps=3"]
    said = root.call([f"{BIN}/dladiff", "protect", "/photos/ada", "/out", *few], timeout=900)
    assert "protected 1" in said
    assert 1 <= largest_change(root.folder / "out/images/ada/photo.png", astronaut) <= 18
