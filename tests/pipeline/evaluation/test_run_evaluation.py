"""A whole evaluation: a tiny real checkpoint for the mechanics, the embedded one once."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import UNet2DConditionModel

from dladiff.evaluation.remover import Remover, save_remover
from pipeline.commands.evaluate import evaluate
from pipeline.errors import ConfigurationError
from pipeline.evaluation.families import Standing, standings
from pipeline.evaluation.protection import encoders_in_loss, encoders_of_method
from pipeline.evaluation.rows import ATTACKS_SCHEMA, IMAGES_SCHEMA
from pipeline.evaluation.run import EvaluationOutcome, run_evaluation
from pipeline.evaluation.settings import EvaluationSettings, default_judges
from pipeline.storage.store import open_store
from tests.evaluation_scenes import InProcess, few_images, few_steps, write_trees
from tests.tiny_adapters import write_identity_net, write_instantid
from tests.tiny_models import write_checkpoint, write_xl_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return write_trees(tmp_path, {"ann": 6, "ben": 6})


def evaluate_trees(
    trees: tuple[Path, Path], out: Path, settings: EvaluationSettings, at_most: int = 10**9
) -> tuple[EvaluationOutcome, InProcess]:
    workers = InProcess(at_most)
    clean, protected = trees
    return run_evaluation(str(clean), str(protected), str(out), settings, workers), workers


def test_an_evaluation_leaves_tables_a_summary_and_a_page_and_no_weights(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    out = tmp_path / "out"
    outcome, workers = evaluate_trees(trees, out, few_images(checkpoint))
    assert outcome.exit_code == 0
    assert len(workers.attacks) == 4 + 1  # two people, clean and protected, and the floor
    attacks = pq.read_table(out / "attacks.parquet")
    images = pq.read_table(out / "images.parquet")
    assert attacks.schema.equals(ATTACKS_SCHEMA)
    assert images.schema.equals(IMAGES_SCHEMA)
    assert attacks["status"].to_pylist() == ["done"] * 4
    assert all(math.isfinite(distance) for distance in attacks["kid"].to_pylist())
    assert images.num_rows == 4 * 2 * 2  # attacks, stops, images
    assert sum(images["counts"].to_pylist()) == 4 * 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["facts"]["people"] == "2"
    assert summary["visibility"]["protected"]["max_change_levels"] == 7
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {
        ".parquet",
        ".json",
        ".html",
        ".png",
    }


def test_an_attack_learns_from_what_the_remover_leaves(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    torch.manual_seed(0)
    remover = Remover()
    torch.nn.init.normal_(remover.tail.weight, std=0.05)
    save_remover(remover, tmp_path / "remover.safetensors")
    settings = few_images(
        checkpoint,
        handlings=("none", "unprotect"),
        remover=str(tmp_path / "remover.safetensors"),
        max_people=1,
        num_trained=1,
    )
    out = tmp_path / "out"
    _, workers = evaluate_trees(trees, out, settings)
    rows = pq.read_table(out / "attacks.parquet").to_pylist()
    assert {(row["handling"], row["condition"], row["status"]) for row in rows} == {
        (handling, condition, "done")
        for handling in settings.handlings
        for condition in ("clean", "protected")
    }
    pictures = {
        (cell.handling, cell.photos): (out / "cells" / "attack" / f"{cell.key}.png").read_bytes()
        for cell in workers.attacks
    }
    attacked = {photos for _, photos in pictures if photos}
    assert len(attacked) == 2  # clean and protected
    for photos in attacked:
        assert pictures["none", photos] != pictures["unprotect", photos]


def test_nothing_is_computed_twice_and_a_killed_evaluation_goes_on(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    out, settings = tmp_path / "out", few_images(checkpoint)
    with pytest.raises(SystemExit):
        evaluate_trees(trees, out, settings, at_most=3)
    _, second = evaluate_trees(trees, out, settings)
    assert len(second.attacks) == 5 - 3
    page = (out / "page.html").read_text()
    _, third = evaluate_trees(trees, out, settings)
    assert third.done == []
    assert (out / "page.html").read_text() == page


def test_instantid_attacks_stable_diffusion_xl_and_nothing_trains_there(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    xl = write_xl_checkpoint(tmp_path / "xl")
    unet = UNet2DConditionModel.from_pretrained(xl / "unet")
    given = {
        "attacks": ("zero_shot",),
        "adapter_kind": "instantid",
        "adapter": str(write_instantid(tmp_path / "ip-adapter.safetensors", unet, id_dim=128)),
        "adapter_controlnet": str(write_identity_net(tmp_path / "ControlNetModel", unet)),
    }
    out = tmp_path / "out"
    outcome, _ = evaluate_trees(trees, out, few_images(xl, **given))
    assert outcome.exit_code == 0
    attacks = pq.read_table(out / "attacks.parquet")
    assert attacks["status"].to_pylist() == ["done"] * 4
    for wrong in ({"attacks": ("zero_shot", "lora")}, {"handlings": ("none", "sdedit")}):
        with pytest.raises(ConfigurationError, match=r"without purification only.*(lora|sdedit)"):
            evaluate_trees(trees, out, few_images(xl, **(given | wrong)))


def test_another_protected_tree_reuses_the_clean_attacks(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    out, settings = tmp_path / "out", few_images(checkpoint)
    evaluate_trees(trees, out, settings)
    _, stronger = write_trees(tmp_path / "stronger", {"ann": 6, "ben": 6}, levels=12)
    _, workers = evaluate_trees((trees[0], stronger), out, settings)
    assert len(workers.attacks) == 2


def test_the_page_names_nobody(trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    evaluate_trees(trees, out, few_images(checkpoint))
    page = (out / "page.html").read_text()
    for secret in ("ann", "ben", str(trees[0])):
        assert f">{secret}<" not in page
        assert f"{secret}/" not in page
    assert "person 1" in page


def test_a_person_without_any_face_fails_alone_and_says_why(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    from tests.sample_photos import jpeg_bytes

    clean, protected = trees
    for folder in (clean, protected):
        for path in (folder / "ben").iterdir():
            path.write_bytes(jpeg_bytes(200, 200, seed=len(path.stem)))
    settings = few_images(checkpoint, view="face")
    outcome, _ = evaluate_trees(trees, tmp_path / "out", settings)
    assert outcome.exit_code == 2
    rows = pq.read_table(tmp_path / "out" / "attacks.parquet").to_pylist()
    by_person = {row["identity"]: row for row in rows}
    assert by_person["ann"]["status"] == "done"
    assert by_person["ben"]["reason"].startswith("no_face")


def test_encoders_in_a_loss_are_known_from_the_run_that_protected(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    encoders = [{"name": "mine", "kind": "student"}, {"name": "judge", "held_out": True}]
    method = {
        "layer1": {"enabled": False, "likeness": {"more_encoders": [{"name": "other"}]}},
        "layer2": {"enabled": True, "encoders": encoders},
    }
    store.write("runs/a/run.json", json.dumps({"config": {"method": method}}).encode())
    assert encoders_in_loss([str(tmp_path / "out")]) == {}  # no manifest: no OUTPUT
    store.write("manifest/run=a/part-000000.parquet", b"")
    in_loss = encoders_in_loss([str(tmp_path / "out")])
    assert in_loss == {"mine": "SFace"}
    judges = standings(default_judges(), in_loss)
    assert judges["sface"] == Standing("SFace", in_loss=False, kin_of_loss=True)
    assert not judges["dlib"].kin_of_loss


def test_a_record_tells_all_encoders_that_a_loss_read() -> None:
    more = [{"name": "small", "kind": "student"}, {"name": "judge", "kind": "student"}]
    judging = {"name": "judge", "kind": "student", "held_out": True}
    layer2 = {"enabled": False, "encoders": [{"name": "net", "kind": "dlib_resnet"}, judging]}
    likeness = {"enabled": True, "more_encoders": more}
    method = {"layer1": {"enabled": True, "likeness": likeness}, "layer2": layer2}
    assert encoders_of_method(method) == {"net": "dlib", "small": "SFace"}
    likeness["enabled"] = False
    assert encoders_of_method(method) == {}
    layer2["enabled"] = True
    assert encoders_of_method(method) == {"net": "dlib"}


def test_roles_tell_what_a_loss_read() -> None:
    small = {"name": "small", "kind": "student", "role": "beside"}
    judging = {"name": "judge", "kind": "student", "role": "judge"}
    leading = {"name": "net", "kind": "dlib_resnet", "role": "lead"}
    method: dict[str, Any] = {"recognisers": [leading, small, judging]}
    assert encoders_of_method(method) == {"net": "dlib", "small": "SFace"}
    assert encoders_of_method(method | {"against": "zero-shot"}) == {"net": "dlib"}
    assert encoders_of_method(method | {"other": "facelock"}) == {"net": "dlib"}
    assert encoders_of_method(method | {"other": "mist"}) == {}


def test_each_tree_is_a_point_of_a_curve_with_what_it_shows(
    trees: tuple[Path, Path], tmp_path: Path, checkpoint: Path
) -> None:
    _, stronger = write_trees(tmp_path / "stronger", {"ann": 6, "ben": 6}, levels=12)
    clean, protected = trees
    out = tmp_path / "out"
    run_evaluation(
        str(clean),
        str(protected),
        str(out),
        few_images(checkpoint),
        InProcess(),
        {"noise@12": str(stronger)},
    )
    summary = json.loads((out / "summary.json").read_text())
    first, second = summary["curves"]
    assert (first["method"], second["method"]) == ("protected", "noise")
    assert second["cpu_seconds"] is None  # a folder of photos says nothing of it
    assert second["lpips"] > first["lpips"] > 0
    assert second["psnr_db"] < first["psnr_db"]


@pytest.mark.slow
def test_the_command_attacks_the_embedded_model_on_ray(
    trees: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real model, real judges, real workers, at very few steps."""
    import typer

    clean, protected = trees
    with pytest.raises(typer.Exit) as ended:
        evaluate(
            str(clean),
            str(protected),
            str(tmp_path / "out"),
            people=1,
            images=2,
            attacks=["dreambooth", "zero_shot"],
            handlings=["none"],
            overrides=few_steps(("dreambooth", "zero_shot")),
            workers=1,
        )
    assert ended.value.exit_code == 0
    said = capsys.readouterr()
    assert "dreambooth, none, protected (" in said.out
    assert "ann" not in said.out + said.err
    rows = pq.read_table(tmp_path / "out" / "attacks.parquet").to_pylist()
    assert {row["attack"] for row in rows} == {"dreambooth", "zero_shot"}
    assert all(row["face_detection_rate"] > 0 for row in rows if row["attack"] == "zero_shot")
