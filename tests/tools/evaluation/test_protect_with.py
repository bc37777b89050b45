"""The command: a tree of the shape that an evaluation reads, its costs, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dladiff.config import preset_settings
from dladiff.methods.others.person import BaselineSettings
from dladiff.photo_at_work import PhotoAtWork
from dladiff.protect import take_likeness_away
from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings
from pipeline.evaluation.people import protected_uris
from tools.evaluation.protect_with import main
from tools.evaluation.sampled_face import sampled_face_method


@pytest.fixture(scope="module")
def album(astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with two photos each."""
    folder = tmp_path_factory.mktemp("album")
    for name, flip in (("ann", False), ("ben", True)):
        (folder / name).mkdir()
        part = astronaut[:256, 110:334]
        face = np.ascontiguousarray(part[:, ::-1] if flip else part)
        for number in (1, 2):
            Image.fromarray(face).save(folder / name / f"{number}.jpg", quality=95)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)


def test_a_tree_is_written_that_an_evaluation_finds_and_its_costs_beside_it(
    album: Path, tmp_path: Path
) -> None:
    output = tmp_path / "guarded"
    main(["photoguard", str(album), str(output), "--steps", "2", "--photos", "1"])
    photos = read_catalog(str(album), OperationSettings()).photos
    found = protected_uris(photos, str(output))
    assert len(found) == 2
    for clean_uri, uri in found.items():
        clean, protected = (pixels(Path(u.removeprefix("file://"))) for u in (clean_uri, uri))
        assert clean.shape == protected.shape
        assert 1 <= np.abs(clean - protected).max() <= 3
    cost = json.loads((output / "cost.json").read_text())
    assert cost["method"] == "photoguard"
    assert (cost["num_people"], cost["num_photos"], cost["steps_mean"]) == (2, 2, 2)
    # The clean view, the target and one pass per step; no UNet.
    assert cost["per_photo"]["vae_passes"] == 4
    assert cost["per_photo"]["unet_forward_backward_pairs"] == 0
    assert cost["per_photo"]["cpu_seconds"] > 0
    assert cost["psnr_db_median"] > 35
    assert cost["lpips_median"] >= 0
    text = (output / "cost.json").read_text()
    assert not [name for name in ("ann", "ben", str(album)) if name in text]


def test_our_change_of_one_person_is_put_on_the_next(album: Path, tmp_path: Path) -> None:
    ours, output = tmp_path / "ours", tmp_path / "borrowed"
    main(["sign_noise", str(album), str(ours), "--flat", "--face-levels", "6"])
    main(["borrowed", str(album), str(output), "--ours", str(ours), "--photos", "1"])
    clean = pixels(album / "ann" / "1.jpg")
    borrowed = pixels(next((output / "ann").iterdir())) - clean
    assert 3 <= np.abs(borrowed).max() <= 6
    own = pixels(next((ours / "ann").iterdir())) - clean
    assert not np.array_equal(borrowed, own)


def test_a_folder_that_holds_another_run_is_refused(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cost.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["sign_noise", str(album), str(tmp_path)])
    assert "not empty" in capsys.readouterr().err


def test_borrowed_asks_for_the_tree_that_it_borrows_from(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["borrowed", str(album), str(tmp_path / "new")])
    assert "--ours" in capsys.readouterr().err


def test_our_recipe_is_aimed_at_another_stranger_for_each_person_within_our_budgets(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: list[torch.Tensor] = []

    def spy(photos: list[PhotoAtWork], *more: Any) -> None:
        assert [[face.is_person for face in photo.identities] for photo in photos] == [[True]]
        targets.append(photos[0].identities[0].target["sface"])
        take_likeness_away(photos, *more)

    monkeypatch.setattr("tools.evaluation.sampled_face.take_likeness_away", spy)
    output = tmp_path / "stranger"
    main(["sampled_face", str(album), str(output), "--steps", "3", "--photos", "1"])
    # Ann and ben are the same astronaut, one of them mirrored: their own faces are alike.
    assert float((targets[0] * targets[1]).sum()) < 0.6
    for name in ("ann", "ben"):
        clean = pixels(album / name / "1.jpg")
        change = np.abs(pixels(next((output / name).iterdir())) - clean)
        assert 1 <= change.max() <= 18
        assert change[:8, :8].max() <= 3
    cost = json.loads((output / "cost.json").read_text())
    assert (cost["method"], cost["steps_mean"]) == ("sampled_face", 3)
    assert cost["encoders_in_loss"] == {
        **dict.fromkeys(("sface", "plain", "mobile"), "SFace"),
        "dlib": "dlib",
    }
    assert cost["per_photo"]["vae_passes"] > 0


def test_a_sampled_face_takes_our_steps_and_no_budget_of_seconds(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["sampled_face", str(album), str(tmp_path / "x"), "--cpu-seconds", "3"])
    assert "follows our recipe" in capsys.readouterr().err


def test_its_method_differs_from_ours_in_nothing_but_what_is_asked_for() -> None:
    ours = preset_settings("balanced")
    same = sampled_face_method(BaselineSettings(), None)
    assert same == ours.model_copy(update={"seed": 0})
    weaker = sampled_face_method(BaselineSettings(face_levels=12.0, surroundings_levels=2.0), 5)
    assert weaker.budget.fine_tuning_levels + weaker.budget.zero_shot_levels == 12
    assert weaker.budget.surroundings_levels == 2
    assert weaker.loop.num_steps == 5
