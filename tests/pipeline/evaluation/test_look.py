"""A look through an autoencoder: what it leaves, what it does not do twice, what it refuses."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from dladiff.errors import ModelError
from dladiff.evaluation.remover import Remover, save_remover
from pipeline.commands.evaluate import evaluate
from pipeline.errors import ConfigurationError
from pipeline.evaluation import look as look_module
from pipeline.evaluation.look import (
    LOOK_SCHEMA,
    detection_aucs,
    in_this_process,
    run_look,
)
from pipeline.evaluation.run import run_evaluation
from pipeline.evaluation.settings import ALL_PHOTOS
from pipeline.evaluation.words import look_table
from tests.evaluation_scenes import InProcess, few_images, write_trees
from tests.tiny_models import write_checkpoint


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny autoencoder halves sides but once: at 512 px its attention takes seconds."""
    monkeypatch.setattr(look_module, "SIZES", (None, 96))


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
    assert table.num_rows == 4 * 2 * 2 * 2  # photos, conditions, sizes, handlings; one judge
    assert set(table["short_side"].to_pylist()) == {None, 96}
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
    shown = "\n".join(look_table(outcome))
    assert f"| sface | clean | {own_size['published']:.2f} | " in shown
    assert f"| sface | clean | {own_size['through']['value']:.2f} | " in shown
    assert "| none, own size | none, 96 px | jpeg75_half, own size | jpeg75_half, 96 px |" in shown
    again = InProcess()
    assert look(again).lines == outcome.lines
    assert again.done == []


def test_a_look_after_a_remover_sees_what_it_leaves_and_is_done_anew_with_another(
    tmp_path: Path,
) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 2}, num_protected=1)
    file = tmp_path / "remover.safetensors"
    settings = few_images(
        num_trained=ALL_PHOTOS, handlings=("none", "unprotect"), remover=str(file)
    )
    paths = (str(clean), str(protected), str(tmp_path / "out"))
    look = partial(run_look, *paths, write_checkpoint(tmp_path / "model"), settings)
    remover = Remover()
    save_remover(remover, file)
    outcome = look(InProcess())
    seen = {
        (line.handling, line.condition, line.short_side): line.published for line in outcome.lines
    }
    # Untrained it changes nothing, and so tells nothing apart.
    assert all(seen["unprotect", *key[1:]] == pytest.approx(seen[key], abs=1e-5) for key in seen)
    assert outcome.detection_auc == {"protected": 0.5}
    assert "told from clean ones" in "\n".join(look_table(outcome))
    summary = json.loads((tmp_path / "out" / "through.json").read_text())
    assert summary["detection_auc"] == {"protected": 0.5}
    again = InProcess()
    look(again)
    assert again.done == []
    torch.nn.init.normal_(remover.tail.weight, std=0.05)
    save_remover(remover, file)
    with pytest.raises(SystemExit, match="killed"):
        look(InProcess(at_most=0))


def test_detection_compares_conditions_with_clean_photos() -> None:
    records: list[tuple[str, Mapping[str, Any] | None]] = [
        ("clean", {"removed_levels": 0.5}),
        ("clean", {"removed_levels": 1.0}),
    ]
    records += [("protected", {"removed_levels": 0.7}), ("protected", {"removed_levels": 2.0})]
    records += [("other", {"removed_levels": 1.0}), ("other", {"looks": []}), ("clean", None)]
    assert detection_aucs(records) == {"protected": 0.75, "other": 0.75}


def test_a_remover_that_is_none_is_refused_before_any_work(tmp_path: Path) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 2}, num_protected=1)
    settings = few_images(handlings=("unprotect",), remover=str(tmp_path / "no.safetensors"))
    paths = (str(clean), str(protected), str(tmp_path / "out"))
    with pytest.raises(ModelError, match="there is no remover at"):
        run_look(*paths, write_checkpoint(tmp_path / "model"), settings, InProcess())
    with pytest.raises(ModelError, match="there is no remover at"):
        run_evaluation(*paths, settings, InProcess())
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="needs a remover: give --remover FILE"):
        few_images(handlings=("unprotect",))
    with pytest.raises(ConfigurationError, match="no effect without its handling"):
        evaluate(*paths, remover=tmp_path / "no.safetensors")


def test_a_look_refuses_what_needs_a_checkpoint_and_options_of_attacks(tmp_path: Path) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 2}, num_protected=1)
    model = write_checkpoint(tmp_path / "model")
    paths = (str(clean), str(protected), str(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="cannot do sdedit: choose of none"):
        run_look(*paths, model, few_images(handlings=("sdedit",)), InProcess())
    with pytest.raises(ConfigurationError, match="leave --attack, --set out"):
        evaluate(*paths, through=model, attacks=["lora"], overrides=["lora.num_steps=1"])
    assert not (tmp_path / "out").exists()
