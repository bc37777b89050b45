"""The wheel built from this tree, and what its users do first with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
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
"""Protects photo.png beside it with the base install; fails where another tree is imported."""


def build_wheel(folder: Path) -> Path:
    """Builds it from a copy of the tree, without asking an index; it lies in ``folder``."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("dladiff", "pipeline"):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    run([*PIP, *build], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=without_source_tree(folder),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def without_source_tree(home: Path) -> dict[str, str]:
    """The variables of this process, without what would show it the source tree."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
