"""A built wheel in an environment of its own, with the packages of the base install alone.

The environment holds links to the tested versions of just those packages that the base install
requires, so that the test downloads nothing and a forgotten dependency fails.
"""

import subprocess
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

from tests.built_wheel import PIP, PROTECT, ROOT, build_wheel, run, without_source_tree


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel installed."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    assert wheel.stat().st_size < 100e6
    target = folder / "environment"
    venv.create(target)
    run([*PIP, "--python", str(target), "install", "--no-deps", str(wheel)], folder)
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
    run([str(environment / "bin" / "python"), "-P", "-c", PROTECT], tmp_path)
    with Image.open(tmp_path / "protected.png") as saved:
        change = np.abs(np.array(saved).astype(int) - clean)
    assert 1 <= change.max() <= 18


def test_the_command_says_what_to_install(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "bin" / "dladiff", "plan", "in", "out"],
        cwd=tmp_path,
        env=without_source_tree(tmp_path),
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
