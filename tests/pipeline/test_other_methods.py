"""``dladiff protect --method NAME``: a method of another paper, from folder to manifest row."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app


def test_the_command_takes_one_by_name(astronaut: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in" / "ann").mkdir(parents=True)
    Image.fromarray(np.ascontiguousarray(astronaut[:256, 110:334])).save(
        tmp_path / "in" / "ann" / "1.png"
    )
    words = ["protect", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "photoguard"]
    words += ["--set", "loop.num_steps=2", "--workers", "1", "--log-json"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    (row,) = pq.read_table(tmp_path / "out" / "manifest").to_pylist()
    assert (row["status"], row["target_met"]) == ("protected", None)
    assert (row["epsilon_finetune_levels"], row["epsilon_zeroshot_levels"]) == (7.0, 11.0)
    assert 1 <= row["max_change_levels"] <= 2
