"""The tables' conditions are what their names say, and a tree is made once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dladiff.config import MethodSettings
from pipeline.config import load_config, method_digest
from pipeline.evaluation.rows import AttackRow, JudgeScore
from pipeline.evaluation.summary import ResultLines, lines_of, summary_json
from tools.evaluation.controls import METHODS
from tools.evaluation.core import __main__ as core
from tools.evaluation.core.conditions import (
    BALANCED,
    CONDITIONS,
    OURS,
    Condition,
    conditions_of,
)
from tools.evaluation.core.table import markdown_table, short


def method_of(condition: Condition) -> MethodSettings:
    words = [*OURS, *condition.options]
    given = list(zip(words[::2], words[1::2], strict=True))
    preset = next((value for name, value in given if name == "--preset"), None)
    return load_config(preset, overrides=[v for n, v in given if n == "--set"]).method


def test_every_tree_of_ours_is_by_a_method_of_its_own() -> None:
    ours = [condition for condition in (BALANCED, *CONDITIONS) if condition.method is None]
    digests = {condition.name: method_digest(method_of(condition), {}) for condition in ours}
    assert len(set(digests.values())) == len(ours)


def test_the_tables_have_every_method_of_others_at_the_same_budget() -> None:
    assert {one.method for one in CONDITIONS if one.part == "baselines"} | {
        one.method for one in CONDITIONS if one.part == "controls"
    } >= set(METHODS)
    names = [condition.name for condition in CONDITIONS]
    assert len(set(names)) == len(names)


def test_parts_are_chosen_and_the_default_comes_first() -> None:
    chosen = conditions_of(["families"])
    names = [one.name for one in chosen]
    assert names == ["protected", "sface-alone", "sface-family", "dlib-alone"]


@pytest.fixture
def album(astronaut: np.ndarray, tmp_path: Path) -> Path:
    """Two people with five photos each."""
    for identity in ("ann", "ben"):
        (tmp_path / "album" / identity).mkdir(parents=True)
        for number in range(5):
            face = np.ascontiguousarray(astronaut[number : number + 256, 110:334])
            Image.fromarray(face).save(tmp_path / "album" / identity / f"{number}.jpg")
    return tmp_path / "album"


def test_only_attacked_photos_are_protected_and_each_tree_once(album: Path, tmp_path: Path) -> None:
    attacked, noise = tmp_path / "attacked", next(c for c in CONDITIONS if c.name == "sign_noise")
    core.copy_attacked_photos(str(album), attacked, 1)
    assert sorted(str(path.relative_to(attacked)) for path in attacked.rglob("*.jpg")) == [
        f"ann/{number}.jpg" for number in range(4)
    ]
    core.make_tree(noise, attacked, tmp_path / "work")
    tree = core.tree_of(noise, tmp_path / "work")
    made = {path: path.stat().st_mtime_ns for path in tree.rglob("*.png")}
    assert len(made) == 4
    core.make_tree(noise, attacked, tmp_path / "work")
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*.png")} == made
    core.copy_attacked_photos(str(album), attacked, 2)
    core.make_tree(noise, attacked, tmp_path / "work")
    assert len(list(tree.rglob("*.png"))) == 8


def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "album").mkdir()
    words = [str(tmp_path / "album"), str(tmp_path / "work")]
    with pytest.raises(SystemExit):
        core.main([*words, "--part", "controls", "--people", "1"])
    assert "need --people 2" in capsys.readouterr().err
    assert core.main([*words, "--part", "presets"]) == 1
    assert "it needs <identity>/<photo>" in capsys.readouterr().err


def test_a_tree_that_broke_off_is_made_anew(album: Path, tmp_path: Path) -> None:
    attacked, noise = tmp_path / "attacked", next(c for c in CONDITIONS if c.name == "sign_noise")
    core.copy_attacked_photos(str(album), attacked, 1)
    tree = core.tree_of(noise, tmp_path / "work")
    tree.mkdir(parents=True)
    (tree / "half-written").touch()
    core.make_tree(noise, attacked, tmp_path / "work")
    assert not (tree / "half-written").exists()
    assert len(list(tree.rglob("*.png"))) == 4


def attack_row(condition: str, identity: str, leaks: tuple[float, float]) -> AttackRow:
    scores = [
        JudgeScore(judge=judge, family=judge, leak=leak, identity_score=leak, leak_smoothed=leak)
        for judge, leak in zip(("one", "two"), leaks, strict=True)
    ]
    return AttackRow(
        identity=identity,
        attack="lora",
        handling="none",
        condition=condition,
        status="done",
        face_detection_rate=1.0,
        kid=0.0125,
        scores=tuple(scores),
    )


def test_the_table_has_a_row_per_condition_by_the_judges_that_are_asked() -> None:
    rows = [
        attack_row(condition, identity, leaks)
        for identity in ("ann", "ben")
        for condition, leaks in (
            ("clean", (0.5, 0.5)),
            ("protected", (0.0, 0.25)),
            ("noise", (0.5, 0.5)),
        )
    ]
    change = {"psnr_db_median": 33.5, "lpips_median": 0.04}
    seen = {"protected": change, "noise": change}
    summary = json.loads(json.dumps(summary_json(ResultLines(rows).lines(), seen)))
    table = markdown_table(
        lines_of(summary),
        summary["visibility"],
        {"protected": "`balanced`", "noise": "noise"},
        "lora",
        "none",
        ["one"],
    )
    head, _, ours, noise = table.splitlines()
    assert head == (
        "| condition | one | smoothed | `balanced` is ahead by | two | PSNR dB, LPIPS | KID |"
    )
    assert ours == "| `balanced` | 1.00 (1.00 to 1.00) | 1.00 |  | .50 | 33.5, .040 | .013 |"
    assert noise == (
        "| noise | .00 (.00 to .00) | .00 | 1.00 (1.00 to 1.00) | .00 | 33.5, .040 | .013 |"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.951, ".95"), (-0.02, "-.02"), (1.04, "1.04"), (None, "-"), (10.5, "10.50")],
)
def test_numbers_have_no_zero_before_the_point(value: float | None, text: str) -> None:
    assert short(value) == text
