"""``dladiff plan``: what a run would do, in lines for a person."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.published_models import AUTOENCODERS
from pipeline.config import load_config
from pipeline.inspection.calibration import sample_sets
from pipeline.inspection.preview import preview_lines, preview_run
from pipeline.options import RunOptions
from pipeline.records import PhotoSet, SourcePhoto
from tests.sample_photos import face_album, jpeg_bytes, write_album


def lines(folder: Path, source: str) -> str:
    config = load_config("zero-shot")
    preview = preview_run(str(folder / source), str(folder / "out"), config, RunOptions())
    return "\n".join(preview_lines(preview))


def test_what_is_passed_over_in_a_folder_is_said(tmp_path: Path) -> None:
    write_album(
        tmp_path / "in",
        {
            "ann/1.jpg": jpeg_bytes(),
            "ann/film.mov": b"x",
            "ann/other.mov": b"x",
            "ann/notes.txt": b"x",
        },
    )
    (tmp_path / "in/bob").mkdir()
    (tmp_path / "in/bob/film.mov").write_bytes(b"x")
    text = lines(tmp_path, "in")
    assert "passed over 4 no photo by their first bytes (mov 3, txt 1)" in text
    assert "looked into 4 files whose name promises no photo, one request each on a bucket" in text
    assert "1 identity without any photo" in text
    assert "to do       1 photo of 1 identity in 1 set" in text
    assert not (tmp_path / "out").exists()


def test_a_calibration_measures_real_photos_and_leaves_no_trace(tmp_path: Path) -> None:
    face_album(tmp_path / "in", {"ann": 2, "bob": 1})
    config = load_config("zero-shot", overrides=["loop.num_steps=1", "threads=1"])
    preview = preview_run(
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        config,
        RunOptions(),
        num_calibration_photos=2,
    )
    assert preview.seconds_per_photo is not None
    assert 0.01 < preview.seconds_per_photo < 60
    assert "this machine's CPU over 2 photos" in "\n".join(preview_lines(preview))
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_calibration_takes_photos_from_all_over_the_plan() -> None:
    photos = [
        SourcePhoto(str(n // 4), f"file:///{n}", f"images/{n}.png", 1, "1") for n in range(40)
    ]
    sets = [PhotoSet(str(n), str(n), tuple(photos[4 * n : 4 * n + 4])) for n in range(10)]
    chosen = [*sample_sets(sets, 40, 10)]
    assert [(one.key, len(one.photos)) for one in chosen] == [("0", 4), ("5", 4), ("1", 2)]
    assert [*sample_sets(sets, 40, 1000)] != []
    assert sum(len(one.photos) for one in sample_sets(sets, 40, 1000)) == 40
    assert [*sample_sets([], 0, 5)] == []


def test_photos_that_a_catalog_names_and_that_are_not_there_are_said(tmp_path: Path) -> None:
    write_album(tmp_path, {"1.jpg": jpeg_bytes()})
    (tmp_path / "c.csv").write_text("identity,uri\nann,1.jpg\nann,2.jpg\n")
    assert "1 photo of the catalog: no such file" in lines(tmp_path, "c.csv")


def test_hours_on_gpus_are_derived_from_the_count_until_something_was_measured(
    tmp_path: Path,
) -> None:
    """Of Stable Diffusion 1.5's autoencoder by its configuration alone: no weights are there."""
    with torch.device("meta"):
        AUTOENCODERS["sd15"].build().save_config(tmp_path / "vae")
    write_album(tmp_path / "in", {f"ann/{number}.jpg": jpeg_bytes() for number in range(8)})
    override = json.dumps({"checkpoint": str(tmp_path / "vae"), "resolution": 512})
    named = load_config("balanced", overrides=[f"autoencoders=[{override}]"])
    preview = preview_run(str(tmp_path / "in"), str(tmp_path / "out"), named, RunOptions())
    assert preview.on_gpus is not None
    counted = json.loads((Path(__file__).parents[3] / "results" / "model_cost.json").read_text())
    (row,) = (
        row for row in counted["rows"] if (row["model"], row["precision"]) == ("sd15", "bfloat16")
    )
    once = row["encode_tflop"] + row["decode_tflop"] + row["back_tflop"]
    # Every other step looks through an autoencoder, every other one of them through this;
    # mixtures come on top.
    steps = named.method.loop.num_steps / 4
    assert steps * once < preview.on_gpus.tflop_per_photo < steps * once * 1.5
    assert preview.on_gpus.images_a_pass == {10: 1, 16: 2, 24: 4, 80: 14}
    text = "\n".join(preview_lines(preview))
    assert re.search(r"on one GPU  at least A100 \d+ s, H100 .*derived, not measured", text)
    assert "24 GiB 4 images, 80 GiB 14 images" in text

    given = preview_run(str(tmp_path / "in"), str(tmp_path / "out"), named, RunOptions(), 2.0)
    assert given.on_gpus is None
    assert given.worker_hours == pytest.approx(8 * 2 / 3600)
    embedded = load_config("balanced")
    plain = preview_run(str(tmp_path / "in"), str(tmp_path / "out"), embedded, RunOptions())
    assert plain.on_gpus is None
