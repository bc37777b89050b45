"""Every instruction of the Dockerfile in a bare Debian, and the image that comes of it."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from packaging.specifiers import SpecifierSet

from tests.deploy.dockerfile import BareRoot, bare_root, base_of, instructions
from tools.deploy.render_manifests import ROOT

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PYTHON_OF = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
"""By Debian release: the version of its package python3, for the quick check."""


def test_the_bases_python_is_the_one_that_is_installed_for() -> None:
    python = PYTHON_OF[base_of(DOCKERFILE)["suite"]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(python)
    install = (ROOT / "deploy/install.sh").read_text()
    found = re.search(r"not \(3, (\d+)\) <= sys\.version_info\[:2\] <= \(3, (\d+)\)", install)
    assert found is not None
    assert int(found[1]) <= int(python.partition(".")[2]) <= int(found[2])
    [packages] = [one.text for one in instructions(DOCKERFILE) if "apt-get install" in one.text]
    assert {"python3", "python3-venv"} <= set(packages.split())


@pytest.fixture(scope="module")
def image() -> Iterator[BareRoot]:
    """The image's files, made by the Dockerfile's own instructions."""
    with bare_root(ROOT) as root:
        for one in instructions(DOCKERFILE):
            root.run(one)
        yield root


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_every_instruction_works_in_a_bare_root(image: BareRoot) -> None:
    assert "protect" in image.call(image.command, read_only=True)
    assert (
        image.call(["dladiff", "--version"], read_only=True).strip()
        == f"dladiff {version('dladiff')}"
    )
    assert "sface" in image.call(["dladiff", "models"], read_only=True)


@pytest.mark.faults
def test_all_that_pods_and_probes_call_is_there(image: BareRoot) -> None:
    for command in ("bash", "wget", "ps", "ray", "hf", "python"):
        assert image.call(["/bin/sh", "-c", f"command -v {command}"]).strip()
    assert image.call(["/bin/sh", "-c", "id -u; id -g"]).split() == ["1000", "1000"]
    assert not (image.folder / "src").exists()


@pytest.mark.faults
def test_bytecode_of_our_code_and_of_torch_is_in_the_image(image: BareRoot) -> None:
    packages = image.folder / "opt/dladiff/lib/python3.11/site-packages"
    for name in ("pipeline", "dladiff", "torch", "ray/data"):
        made = {path.name.split(".")[0] for path in (packages / name / "__pycache__").glob("*.pyc")}
        assert made == {path.stem for path in (packages / name).glob("*.py")}
