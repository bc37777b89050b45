"""From rows to lines."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.evaluation.rows import AttackRow
from pipeline.evaluation.summary import NO_LOSS, OUTSIDE, WORST, ResultLines, summary_json


def row(
    identity: str,
    condition: str,
    leak: float,
    handling: str = "none",
    floor: float = 0.0,
    smoothed: float | None = None,
    in_loss: float = 0.9,
) -> AttackRow:
    """An attack row of two judges of which ``seen`` was in a loss."""
    smooth = leak if smoothed is None else smoothed

    def score(judge: str, is_in: bool, value: float) -> dict[str, Any]:
        return {
            "judge": judge,
            "family": judge,
            "in_loss": is_in,
            "kin_of_loss": is_in,
            "leak": value,
            "identity_score": value,
            "leak_smoothed": smooth,
            "floor": floor,
            "floor_smoothed": floor,
        }

    columns = {
        "identity": identity,
        "attack": "lora",
        "handling": handling,
        "condition": condition,
        "status": "done",
        "face_detection_rate": 1.0,
        "kid": leak / 10,
        "scores": [score("seen", True, in_loss), score("unseen", False, leak)],
    }
    return AttackRow.from_columns(columns)


ROWS = [
    row("ann", "clean", 0.5, floor=0.1),
    row("ben", "clean", 0.7, floor=0.1),
    row("ann", "protected", 0.1, floor=0.1, smoothed=0.3),
    row("ben", "protected", 0.5, floor=0.1, smoothed=0.6),
    row("ann", "noise", 0.5, floor=0.1),
    row("ben", "noise", 0.6, floor=0.1),
    row("ann", "clean", 0.4, "jpeg75", floor=0.1),
    row("ben", "clean", 0.6, "jpeg75", floor=0.1),
    row("ann", "protected", 0.3, "jpeg75", floor=0.1),
    row("ben", "protected", 0.5, "jpeg75", floor=0.1),
]


@pytest.fixture(scope="module")
def lines() -> dict[tuple[str, str, str], Any]:
    found = ResultLines(ROWS).lines()
    return {(line.handling, line.condition, line.judge): line for line in found}


def test_kid_stands_beside_that_of_clean_photos_as_a_mean_over_people(
    lines: dict[Any, Any],
) -> None:
    line = lines["none", "protected", "unseen"]
    assert (line.kid_clean, line.kid) == pytest.approx((0.06, 0.03))
    unknown = ResultLines([replace(one, kid=None) for one in ROWS]).lines()[0]
    assert (unknown.kid_clean, unknown.kid) == (None, None)


def test_effect_is_computed_over_people_by_each_judge(lines: dict[Any, Any]) -> None:
    line = lines["none", "protected", "unseen"]
    assert line.effect.value == pytest.approx((0.4 + 0.2) / (0.4 + 0.6))
    assert line.effect_smoothed.value == pytest.approx((0.2 + 0.1) / (0.4 + 0.6))
    assert (line.effect.num_people, line.num_people) == (2, 2)


def test_the_headline_leaves_out_judges_that_were_in_a_loss(lines: dict[Any, Any]) -> None:
    headline = lines["none", "protected", WORST]
    assert headline.leak == pytest.approx(lines["none", "protected", "unseen"].leak)
    assert (headline.headline, headline.family) == (True, "unseen")
    assert lines["none", "protected", "seen"].in_loss
    assert not lines["none", "protected", "seen"].headline


def with_judges(**effects: tuple[str, bool, bool, float]) -> list[AttackRow]:
    """One person; of each judge family, in a loss, kin of a loss, and its leak where clean is 1."""
    rows = []
    for condition in ("clean", "protected"):
        base = row("ann", condition, 0.0)
        scores = tuple(
            replace(
                base.scores[0],
                judge=judge,
                family=family,
                in_loss=is_in,
                kin_of_loss=is_kin,
                leak=1.0 if condition == "clean" else leak,
            )
            for judge, (family, is_in, is_kin, leak) in effects.items()
        )
        rows.append(replace(base, scores=scores))
    return rows


def test_the_worst_family_leads_each_by_the_mean_of_its_judges_and_kin_stay_visible() -> None:
    rows = with_judges(
        sface=("SFace", True, True, 0.0),
        student=("SFace", False, True, 0.9),
        dlib=("dlib", False, False, 0.1),
        one=("ArcFace", False, False, 0.2),
        two=("ArcFace", False, False, 0.4),
    )
    found = ResultLines(rows).lines()
    assert [line.judge for line in found[:2]] == [WORST, OUTSIDE]
    assert found[0].family == "ArcFace"
    assert found[0].effect.value == pytest.approx(1 - 0.3)
    assert found[1].effect.value == pytest.approx(1 - (0.3 + 0.1) / 2)
    student = next(line for line in found if line.judge == "student")
    assert student.kin_of_loss
    assert student.effect.value == pytest.approx(0.1)
    assert sum(line.headline for line in found) == 1


def test_where_every_family_is_kin_of_a_loss_the_headline_says_so() -> None:
    rows = with_judges(sface=("SFace", True, True, 0.0), student=("SFace", False, True, 0.6))
    first = ResultLines(rows).lines()[0]
    assert (first.judge, first.headline, first.kin_of_loss) == (NO_LOSS, True, True)
    assert first.effect.value == pytest.approx(0.4)


def test_retained_is_the_share_of_the_effect_that_handling_leaves(lines: dict[Any, Any]) -> None:
    handled = lines["jpeg75", "protected", "unseen"]
    assert handled.effect.value == pytest.approx((0.1 + 0.1) / (0.3 + 0.5))
    assert handled.retained == pytest.approx(0.25 / 0.6)
    assert lines["none", "protected", "unseen"].retained is None


def test_other_conditions_say_how_far_they_are_behind(lines: dict[Any, Any]) -> None:
    behind = lines["none", "noise", "unseen"].behind_protected
    assert behind.value == pytest.approx(0.6 - 0.1)
    assert lines["none", "protected", "unseen"].behind_protected is None


def test_people_without_a_clean_attack_are_left_out_of_the_comparison() -> None:
    rows = [*ROWS[:4], row("cid", "protected", 0.0)]
    line = next(line for line in ResultLines(rows).lines() if line.judge == "unseen")
    assert line.num_people == 2


def test_failed_attacks_are_no_lines() -> None:
    failed = replace(row("ann", "protected", 0.0), status="failed")
    assert ResultLines([row("ann", "clean", 0.5), failed]).lines() == []


def test_the_summary_is_json_even_where_an_effect_is_no_number() -> None:
    nothing_learnt = [row("ann", "clean", 0.1, floor=0.2), row("ann", "protected", 0.1, floor=0.2)]
    content = summary_json(ResultLines(nothing_learnt).lines(), {})
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)["lines"][0]["effect"]["value"] is None
