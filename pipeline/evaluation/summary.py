"""Rows -> what an evaluation says: effect by attack, handling, condition and judge.

Numbers over people only; names nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dladiff.evaluation.scores import Score, bootstrap, effect, effect_difference, retained
from pipeline.evaluation.people import CLEAN, PROTECTED

NO_LOSS = "mean of judges in no loss"
"""The headline judge: leaks averaged over the judges that no protection saw."""

PerPerson = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line of the result table."""

    attack: str
    handling: str
    condition: str
    judge: str
    in_loss: bool
    num_people: int
    leak_clean: float
    leak: float
    floor: float
    identity_score: float
    face_detection_rate: float
    effect: Score
    effect_smoothed: Score
    """The same on smoothed images: what vanishes there is no protection."""
    retained: float | None
    """Share of the effect without handling that is left under this one."""
    behind_protected: Score | None
    """How much more effect ``protected`` has than this condition, paired; None for itself."""


class ResultLines:
    """Lines of a result, from its attack rows."""

    def __init__(self, attacks: Sequence[Mapping[str, Any]]) -> None:
        self._rows = {
            (row["attack"], row["handling"], row["condition"], row["identity"]): _with_mean(row)
            for row in attacks
            if row["status"] == "done"
        }

    def lines(self) -> list[Line]:
        """All lines: attacks and handlings as they came, the headline judge first."""
        keys = dict.fromkeys((key[:3]) for key in self._rows if key[2] != CLEAN)
        lines = [
            line
            for attack, handling, condition in keys
            for judge in self._judges(attack, handling, condition)
            if (line := self._line(attack, handling, condition, judge)) is not None
        ]
        return lines

    def _judges(self, attack: str, handling: str, condition: str) -> list[str]:
        row = next(
            row for key, row in self._rows.items() if key[:3] == (attack, handling, condition)
        )
        return list(row["scores"])

    def _line(self, attack: str, handling: str, condition: str, judge: str) -> Line | None:
        people = self._people(attack, handling, condition)
        if not people:
            return None

        def column(of: str, name: str, under: str = handling) -> PerPerson:
            rows = [self._rows[attack, under, of, person] for person in people]
            return np.array([row["scores"][judge][name] for row in rows], dtype=np.float64)

        def triple(of: str, suffix: str = "", under: str = handling) -> tuple[PerPerson, ...]:
            return (
                column(CLEAN, f"leak{suffix}", under),
                column(of, f"leak{suffix}", under),
                column(of, f"floor{suffix}", under),
            )

        rows = [self._rows[attack, handling, condition, person] for person in people]
        clean, leaks, floors = triple(condition)
        kept = None
        if handling != "none" and set(people) <= set(self._people(attack, "none", condition)):
            kept = retained(*triple(condition, under="none"), *triple(condition))
        behind = None
        if condition != PROTECTED and set(people) <= set(self._people(attack, handling, PROTECTED)):
            behind = bootstrap(effect_difference, clean, column(PROTECTED, "leak"), leaks, floors)
        return Line(
            attack=attack,
            handling=handling,
            condition=condition,
            judge=judge,
            in_loss=rows[0]["scores"][judge]["in_loss"],
            num_people=len(people),
            leak_clean=float(clean.mean()),
            leak=float(leaks.mean()),
            floor=float(floors.mean()),
            identity_score=float(column(condition, "identity_score").mean()),
            face_detection_rate=float(np.mean([row["face_detection_rate"] for row in rows])),
            effect=bootstrap(effect, clean, leaks, floors),
            effect_smoothed=bootstrap(effect, *triple(condition, "_smoothed")),
            retained=None if kept is None or math.isnan(kept) else kept,
            behind_protected=behind,
        )

    def _people(self, attack: str, handling: str, condition: str) -> list[str]:
        """Those of whom there are both the condition and the clean attack."""
        return [
            key[3]
            for key in self._rows
            if key[:3] == (attack, handling, condition)
            and (attack, handling, CLEAN, key[3]) in self._rows
        ]


def _with_mean(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its scores by judge, and the mean of the judges in no loss before them."""
    scores = {score["judge"]: score for score in row["scores"]}
    in_no_loss = [score for score in scores.values() if not score["in_loss"]]
    if in_no_loss:
        names = [name for name in in_no_loss[0] if name not in ("judge", "in_loss")]
        mean = {name: float(np.mean([score[name] for score in in_no_loss])) for name in names}
        scores = {NO_LOSS: {"judge": NO_LOSS, "in_loss": False, **mean}, **scores}
    return {**row, "scores": scores}


def summary_json(
    lines: Sequence[Line], visibility: Mapping[str, Mapping[str, float | None]], **more: Any
) -> dict[str, Any]:
    """The content of ``summary.json``; numbers that are none become null."""
    content = {**more, "visibility": visibility, "lines": [asdict(line) for line in lines]}
    cleaned: dict[str, Any] = _without_nan(content)
    return cleaned


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
