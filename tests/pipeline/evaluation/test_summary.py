"""From rows to lines."""

import json
from typing import Any

import pytest

from pipeline.evaluation.summary import NO_LOSS, ResultLines, summary_json


def row(
    identity: str,
    condition: str,
    leak: float,
    handling: str = "none",
    floor: float = 0.0,
    smoothed: float | None = None,
    in_loss: float = 0.9,
) -> dict[str, Any]:
    """An attack row of two judges of which ``seen`` was in a loss."""
    smooth = leak if smoothed is None else smoothed

    def score(judge: str, is_in: bool, value: float) -> dict[str, Any]:
        return {
            "judge": judge,
            "in_loss": is_in,
            "leak": value,
            "identity_score": value,
            "leak_smoothed": smooth,
            "floor": floor,
            "floor_smoothed": floor,
        }

    return {
        "identity": identity,
        "attack": "lora",
        "handling": handling,
        "condition": condition,
        "status": "done",
        "face_detection_rate": 1.0,
        "scores": [score("seen", True, in_loss), score("unseen", False, leak)],
    }


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


@pytest.fixture
def lines() -> dict[tuple[str, str, str], Any]:
    found = ResultLines(ROWS).lines()
    return {(line.handling, line.condition, line.judge): line for line in found}


def test_effect_is_computed_over_people_by_each_judge(lines: dict[Any, Any]) -> None:
    line = lines["none", "protected", "unseen"]
    assert line.effect.value == pytest.approx((0.4 + 0.2) / (0.4 + 0.6))
    assert line.effect_smoothed.value == pytest.approx((0.2 + 0.1) / (0.4 + 0.6))
    assert (line.effect.num_people, line.num_people) == (2, 2)


def test_the_headline_leaves_out_judges_that_were_in_a_loss(lines: dict[Any, Any]) -> None:
    headline = lines["none", "protected", NO_LOSS]
    assert headline.leak == pytest.approx(lines["none", "protected", "unseen"].leak)
    assert lines["none", "protected", "seen"].in_loss


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
    rows = [*ROWS, row("cid", "protected", 0.0)]
    line = next(line for line in ResultLines(rows).lines() if line.judge == "unseen")
    assert line.num_people == 2


def test_failed_attacks_are_no_lines() -> None:
    failed = {**row("ann", "protected", 0.0), "status": "failed"}
    assert ResultLines([row("ann", "clean", 0.5), failed]).lines() == []


def test_the_summary_is_json_even_where_an_effect_is_no_number() -> None:
    nothing_learnt = [row("ann", "clean", 0.1, floor=0.2), row("ann", "protected", 0.1, floor=0.2)]
    content = summary_json(ResultLines(nothing_learnt).lines(), {})
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)["lines"][0]["effect"]["value"] is None
