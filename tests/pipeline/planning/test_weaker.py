"""What makes protection weaker than its preset is named, and nothing else is."""

from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from dladiff.config import PresetName, preset_settings
from pipeline.cli import app
from pipeline.planning.weaker import weaker_than_preset
from tests.sample_photos import jpeg_bytes, write_album

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_no_preset_is_weaker_than_itself(preset: PresetName) -> None:
    assert weaker_than_preset(preset_settings(preset)) is None


def test_few_steps_tiny_budgets_and_stricter_detectors_are_named() -> None:
    method = preset_settings("zero-shot").changed(
        "loop.num_steps=2", "budget.zero_shot_levels=1", "detector.min_size_px=90", "seed=5"
    )
    assert weaker_than_preset(method) == (
        "protection is weaker than preset zero-shot: budget.zero_shot_levels 1 instead of 11, "
        "loop.num_steps 2 instead of 80, detector.min_size_px 90 instead of 24"
    )
    half = preset_settings("balanced").changed("against=zero-shot")
    assert "against zero-shot instead of all" in str(weaker_than_preset(half))
    stronger = preset_settings("zero-shot").changed("loop.num_steps=200")
    assert weaker_than_preset(stronger) is None


def test_plan_says_it(tmp_path: Path) -> None:
    album = write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes()})
    arguments = ["plan", str(album), str(tmp_path / "out"), "--preset", "zero-shot"]
    weaker = CliRunner().invoke(app, [*arguments, "--set", "loop.num_steps=2"])
    assert "weaker than preset zero-shot: loop.num_steps 2 instead of 80" in weaker.output
    assert "weaker" not in CliRunner().invoke(app, arguments).output
