"""A remover learns a pattern that photos of others bear, goes on after a stop, and refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dladiff.config import FaceDetectorSettings
from dladiff.evaluation.remover import load_remover
from dladiff.face_detection import load_face_detector
from pipeline.errors import ConfigurationError
from tests.evaluation_scenes import write_trees
from tests.sample_photos import encode, face_album
from tools.training.remover import main, measure
from tools.training.remover_pairs import CROP_SIDE_PX, Pairs, draw_batch, make_pair, read_pairs


@pytest.fixture
def trees(tmp_path: Path) -> tuple[str, str]:
    """Photos of three people, and the same with a fixed pattern of stripes and dots added."""
    clean = face_album(tmp_path / "clean", {"ann": 3, "ben": 3, "cat": 3})
    rows, columns = np.indices((200, 200))
    pattern = (10 * np.sin(rows / 2) * np.sign(np.sin(columns / 3)))[..., None]
    for path in clean.rglob("*.png"):
        changed = np.clip(np.asarray(Image.open(path)) + pattern, 0, 255).round().astype(np.uint8)
        target = tmp_path / "protected" / path.relative_to(clean)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode(changed, "PNG"))
    return str(clean), str(tmp_path / "protected")


def pairs_of(trees: tuple[str, str]) -> Pairs:
    return read_pairs(*trees, load_face_detector(FaceDetectorSettings(min_score=0.6)))


@pytest.mark.slow
def test_a_pattern_is_learnt_and_taken_off_photos_of_somebody_else(
    trees: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "remover.safetensors"
    options = ["--batch-size", "2", "--warmup-steps", "5", "--learning-rate", "1e-3"]
    assert main([*trees, str(out), "--steps", "20", *options]) == 0
    assert main([*trees, str(out), "--steps", "40", *options]) == 0
    said = capsys.readouterr().out
    assert "6 pairs to learn from, 3 held out, of 1 other person; photos left out: none" in said
    assert "at step 20" in said  # the second command went on
    assert "end, step 40: 3 held-out photos" in said
    assert not {"ann", "ben", "cat"} & set(re.findall(r"\w+", said.replace(str(tmp_path), "")))
    held_out = measure(load_remover(out, "cpu"), pairs_of(trees).held_out)
    assert held_out.removed_psnr_db > held_out.protected_psnr_db + 2
    assert held_out.detection_auc == 1.0


def test_pairs_hold_whole_people_out_and_say_who_is_left_out(
    trees: tuple[str, str], tmp_path: Path
) -> None:
    clean, protected = (Path(tree) for tree in trees)
    (protected / "ann" / "0.png").unlink()
    (protected / "ben" / "0.png").write_bytes((clean / "ben" / "0.png").read_bytes())
    (protected / "cat" / "0.png").write_bytes(encode(np.zeros((190, 200, 3), np.uint8), "PNG"))
    (protected / "cat" / "1.png").write_bytes(b"no photo")
    pairs = pairs_of(trees)
    reasons = {"not_protected": 1, "unchanged": 1, "other_size": 1, "not_an_image": 1}
    assert dict(pairs.left_out) == reasons
    people = [{pair.identity for pair in part} for part in (pairs.training, pairs.held_out)]
    assert len(people[1]) == 1
    assert not people[0] & people[1]
    assert pairs_of(trees).digest == pairs.digest
    (clean / "cat" / "2.png").unlink()
    assert pairs_of(trees).digest != pairs.digest


def test_crops_lie_alike_in_both_photos_and_some_are_clean(trees: tuple[str, str]) -> None:
    given, clean = draw_batch(pairs_of(trees).training, 40, np.random.default_rng(0))
    assert given.shape == (40, 3, CROP_SIDE_PX, CROP_SIDE_PX)
    change = (given - clean).abs().amax(dim=(1, 2, 3)) * 255
    assert change.max() <= 11
    assert 3 <= int((change == 0).sum()) <= 17


def test_of_a_large_photo_a_part_with_the_face_is_kept(trees: tuple[str, str]) -> None:
    photo = np.asarray(Image.open(Path(trees[0]) / "ann" / "0.png"))
    large = np.full((1200, 1600, 3), 90, np.uint8)
    large[900:1100, 1300:1500] = photo
    detector = load_face_detector(FaceDetectorSettings(min_score=0.6))
    pair = make_pair("ann", encode(large, "PNG"), encode(large ^ 1, "PNG"), detector)
    assert pair.clean.shape == pair.protected.shape == (768, 768, 3)
    left, _, right, _ = pair.face
    assert 40 < right - left < 150
    assert len(detector.detect(pair.clean)) == 1
    assert np.array_equal(pair.clean, large[432:, 832:])


def test_what_cannot_be_learnt_from_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, protected = write_trees(tmp_path, {"ann": 2}, num_protected=1)
    out = str(tmp_path / "remover.safetensors")
    with pytest.raises(ConfigurationError, match="one of whom is held out; found 1"):
        pairs_of((str(clean), str(protected)))
    assert main([str(clean), str(protected), out]) == 2
    assert main([str(clean), str(tmp_path / "nowhere"), out]) == 2
    assert "there is no folder of protected photos" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(clean), str(protected), str(tmp_path / "remover.pt")])
    assert "expected a file *.safetensors" in capsys.readouterr().err
