"""A look through an autoencoder: what it leaves, what it does not do twice, what it refuses."""

import json
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.commands.evaluate import evaluate
from pipeline.errors import ConfigurationError
from pipeline.evaluation.look import LOOK_SCHEMA, in_this_process, run_look
from pipeline.evaluation.settings import ALL_PHOTOS
from pipeline.evaluation.words import look_table
from tests.evaluation_scenes import InProcess, few_images, write_trees
from tests.tiny_models import write_checkpoint


def test_a_look_compares_conditions_photo_by_photo_and_keeps_what_is_done(tmp_path: Path) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 3, "ben": 3}, num_protected=2)
    settings = few_images(num_trained=ALL_PHOTOS, handlings=("none", "jpeg75_half"))
    look = partial(
        run_look,
        str(clean),
        str(protected),
        str(tmp_path / "out"),
        write_checkpoint(tmp_path / "model"),
        settings,
    )
    outcome = look(partial(in_this_process, 1))
    assert (outcome.exit_code, outcome.num_people, outcome.num_photos) == (0, 2, 4)
    table = pq.read_table(tmp_path / "out" / "through.parquet")
    assert table.schema.equals(LOOK_SCHEMA)
    assert table.num_rows == 4 * 2 * 3 * 2  # photos, conditions, sizes, handlings; one judge
    assert set(table["short_side"].to_pylist()) == {None, 256, 512}
    summary = json.loads((tmp_path / "out" / "through.json").read_text())
    own_size = next(line for line in summary["lines"] if line["condition"] == "clean")
    assert own_size["published"] == pytest.approx(
        sum(
            row["cosine_published"]
            for row in table.to_pylist()
            if (row["condition"], row["short_side"], row["handling"]) == ("clean", None, "none")
        )
        / 4
    )
    assert "| sface | clean |" in "\n".join(look_table(outcome))
    again = InProcess()
    assert look(again).lines == outcome.lines
    assert again.done == []


def test_a_look_refuses_what_needs_a_checkpoint_and_options_of_attacks(tmp_path: Path) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 2}, num_protected=1)
    model = write_checkpoint(tmp_path / "model")
    paths = (str(clean), str(protected), str(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="cannot do sdedit: choose of none"):
        run_look(*paths, model, few_images(handlings=("sdedit",)), InProcess())
    with pytest.raises(ConfigurationError, match="leave --attack, --set out"):
        evaluate(*paths, through=model, attacks=["lora"], overrides=["lora.num_steps=1"])
    assert not (tmp_path / "out").exists()
