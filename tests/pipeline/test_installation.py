"""Files around the code: pinned versions, the list of commands, what the README promises."""

import itertools
import re
import shlex
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dladiff.config import MethodSettings
from tools.demo.photos import write_demo_album

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in requirements
    }


def test_both_opencv_packages_have_one_version_since_they_install_one_module(
    pins: dict[str, str],
) -> None:
    assert pins["opencv-python"] == pins["opencv-python-headless"]


def test_torchvision_fits_torch_since_its_compiled_operators_run() -> None:
    # onnx2torch imports it; one that was built for another torch registers no operators.
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    kept = nms(boxes, scores=torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    assert kept.tolist() == [0, 2]


def test_every_dependency_is_pinned_within_what_the_project_allows(pins: dict[str, str]) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *itertools.chain(*extras.values())]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:  # an extra that brings another
            continue
        assert "==" not in str(requirement.specifier), f"exact versions stand in the lock: {text}"
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), text


def test_the_tests_run_on_the_pinned_versions(pins: dict[str, str]) -> None:
    for name in ("torch", "ray", "typer", "pyarrow", "onnxruntime", "opencv-python-headless"):
        assert version(name).partition("+")[0] == pins[name]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_lists_every_command_that_a_document_names() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE))
    texts = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    named = {name for text in texts for name in re.findall(r"`make (\w+)", text)}
    assert {"demo", "check"} <= named <= listed


def test_continuous_integration_checks_and_tests_with_the_developers_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make check test"
    planned = subprocess.run(
        ["make", "--dry-run", "check", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for tool in ("ruff format --check", "ruff check", "mypy", "lint-imports", "-m pytest"):
        assert tool in planned


def test_the_demo_album_is_one_person_and_left_alone_the_second_time(tmp_path: Path) -> None:
    write_demo_album(tmp_path)
    photos = sorted((tmp_path / "astronaut").iterdir())
    assert len(photos) == 4
    before = [path.stat().st_mtime_ns for path in photos]
    write_demo_album(tmp_path)
    assert [path.stat().st_mtime_ns for path in photos] == before
    assert len({path.read_bytes() for path in photos}) == 4


def readme_commands() -> list[str]:
    """Every ``dladiff`` line in a code block of the README, without its comment."""
    blocks = re.findall(
        r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("dladiff ")]


SECTIONS = {"method", "operation", *MethodSettings.model_fields}


def documented_changes() -> list[list[str]]:
    """The ``--set`` values, line by line, that the README or a document shows for a run."""
    texts = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    sections = [
        "method.",
        "operation.",
        "model.",
        "loop.",
        "budget.",
        "surrogates.",
        "paper.",
        "detector.",
    ]
    found = []
    for line in "\n".join(texts).splitlines():
        values = re.findall(r"--set ('[^']+'|[\w.]+=[^\s`)]+)", line)
        found.append(
            [one.strip("'") for one in values if one.strip("'").startswith(tuple(sections))]
        )
    return [values for values in found if values]


@pytest.mark.parametrize("changes", documented_changes(), ids=" ".join)
def test_each_documented_change_has_an_effect(changes: list[str]) -> None:
    from pipeline.config import load_config

    # A setting that nothing reads is refused; one that is as ever would change nothing.
    whole = load_config(overrides=changes)
    for change in changes:
        path = change.partition("=")[0].removeprefix("method.")
        node: Any = whole if path.startswith("operation.") else whole.method
        usual: Any = load_config() if path.startswith("operation.") else load_config().method
        for part in path.split("."):
            node, usual = getattr(node, part), getattr(usual, part)
        assert node != usual, change


@pytest.mark.parametrize("line", readme_commands())
def test_the_readmes_commands_are_understood(line: str) -> None:
    from typer.main import get_command

    from pipeline.cli import app
    from pipeline.commands.arguments import configuration

    command: Any = get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    parameters = command.make_context("dladiff", words).params
    configuration(parameters.get("preset"), None, parameters.get("overrides"))


def test_the_readme_names_every_command_and_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(readme_commands()) >= 8
    for command in ("protect", "plan", "status", "verify", "explain", "report", "check", "models"):
        assert f"| `{command}" in text
    assert re.findall(r"^\| (\d) \|", text, re.MULTILINE) == ["0", "1", "2", "3"]
