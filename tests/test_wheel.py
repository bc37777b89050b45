"""A built wheel in an environment of its own, with the packages of the base install alone.

The environment holds links to the tested versions of just those packages that the base install
requires, so that the test downloads nothing and a forgotten dependency fails.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROTECT = """
import sys, numpy, dladiff
from PIL import Image
assert dladiff.__file__.startswith(sys.prefix), dladiff.__file__
assert dladiff.__version__ != "0+unknown"
method = dladiff.preset_settings("balanced")
method = method.changed("loop.num_steps=3", "loop.finishing_steps=1")
[protected] = dladiff.Protector(method)(["photo.png"])
assert not {"ray", "pyarrow", "typer"} & {name for name in sys.modules}
Image.fromarray(protected).save("protected.png")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("dladiff", "pipeline"):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    _run([*pip, *build], folder)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 100e6
    target = folder / "environment"
    venv.create(target)
    _run([*pip, "--python", str(target), "install", "--no-deps", str(wheel)], folder)
    (packages,) = target.glob("lib/python*/site-packages")
    for found in _base_install():
        for name in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(found.locate_file(name))))
    return target


def test_the_wheel_protects_a_photo_with_the_base_install_alone(
    environment: Path, tmp_path: Path, astronaut: np.ndarray
) -> None:
    clean = astronaut[:256, 110:334]
    Image.fromarray(clean).save(tmp_path / "photo.png")
    _run([str(environment / "bin" / "python"), "-P", "-c", PROTECT], tmp_path)
    with Image.open(tmp_path / "protected.png") as saved:
        change = np.abs(np.array(saved).astype(int) - clean)
    assert 1 <= change.max() <= 18


def test_the_command_says_what_to_install(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "bin" / "dladiff", "plan", "in", "out"],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'dladiff[pipeline]'" in line
    assert "ray" in line


def test_files_that_are_no_code_are_in_the_wheel(environment: Path) -> None:
    (packages,) = environment.glob("lib/python*/site-packages")
    for package in ("dladiff", "pipeline"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file()]
        others = [path for path in files if path.suffix not in (".py", ".pyc")]
        assert others
        assert [one for one in others if not (packages / one.relative_to(ROOT)).exists()] == []


def test_the_command_names_every_package_of_its_extra() -> None:
    from pipeline.entry import PACKAGES

    names = {Requirement(text).name for text in _project()["optional-dependencies"]["pipeline"]}
    assert set(PACKAGES) == {name.replace("-", "_") for name in names}


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _base_install() -> list[Distribution]:
    """The distributions that ``pip install dladiff`` brings, as they are installed here."""
    found: dict[str, Distribution] = {}
    to_do = [Requirement(text) for text in _project()["dependencies"]]
    while to_do:
        requirement = to_do.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = distribution(name)
            needed = [Requirement(text) for text in found[name].requires or ()]
            to_do += [one for one in needed if _holds(one, {"", *requirement.extras})]
    return list(found.values())


def _holds(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(home: Path) -> dict[str, str]:
    """The variables of this process, without what would show it the source tree."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
