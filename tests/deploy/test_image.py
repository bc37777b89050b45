"""The image's files: what is copied, what is locked, and its steps in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.deploy.render_manifests import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def locked() -> dict[str, str]:
    """Versions in the lock file, each with at least one hash."""
    text = (DEPLOY / "requirements.lock").read_text()
    entries = re.findall(r"^([^\s#][^\n]*?) \\\n((?:    --hash=[^\n]+\n?)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[a-zA-Z]", text, re.MULTILINE))
    requirements = [Requirement(line) for line, _ in entries]
    return {canonicalize_name(one.name): str(one.specifier)[2:] for one in requirements}


def test_every_dependency_is_locked_at_the_version_that_is_tested() -> None:
    pins = locked()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]:
        requirement = Requirement(text)
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), text
        assert f"{requirement.name}=={pin}" in (ROOT / "constraints.txt").read_text()


def test_the_image_copies_only_what_exists_and_lets_it_through() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore


def test_the_image_runs_as_the_user_that_the_manifests_name() -> None:
    assert re.search(r"^USER 1000:1000$", DOCKERFILE, re.MULTILINE)
    assert "runAsUser: 1000" in (ROOT / "k8s/base/rayjob.yaml").read_text()


def test_the_trial_mounts_files_that_exist_and_one_version_of_the_image() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    images = {one["image"] for one in compose["services"].values() if "dladiff" in one["image"]}
    assert images == {f"dladiff:{version('dladiff')}"}
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (DEPLOY / volume.split(":")[0]).exists()


@pytest.mark.slow
def test_the_images_steps_install_a_working_command(tmp_path: Path) -> None:
    target = tmp_path / "dladiff"
    try:
        done = subprocess.run(
            [DEPLOY / "install.sh", target],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=550,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == f"dladiff {version('dladiff')}"
        models = subprocess.run(
            [target / "bin/dladiff", "models"], cwd=tmp_path, capture_output=True, text=True
        )
        assert models.returncode == 0, models.stderr
        assert "sface" in models.stdout
    finally:
        shutil.rmtree(target, ignore_errors=True)  # gigabytes
