"""Rows -> what an evaluation says: effect by attack, handling, condition and judge.

Numbers over people only; names nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dladiff.evaluation.scores import Score, bootstrap, effect, effect_difference, retained
from pipeline.evaluation.people import CLEAN, PROTECTED
from pipeline.evaluation.rows import AttackRow, JudgeScore

WORST = "worst family outside every loss"
"""The headline: of the families of which no member was in a loss, the one that sees most of the
person; leaks are averaged over a family's judges first."""
OUTSIDE = "mean of families outside every loss"
NO_LOSS = "mean of judges in no loss, all kin of one"
"""The headline where no family is outside every loss: judges that share the view of one inside."""

PerPerson = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line of the result table."""

    attack: str
    handling: str
    condition: str
    judge: str
    family: str
    """Family of the judge; empty for a mean over families."""
    in_loss: bool
    kin_of_loss: bool
    """A member of the judge's family was in a loss."""
    num_people: int
    leak_clean: float
    leak: float
    floor: float
    identity_score: float
    face_detection_rate: float
    kid_clean: float | None
    """KID of images that were learnt from clean photos; None where it was not taken."""
    kid: float | None
    """How far images are from photos of the person as pictures; see ``KernelDistance``."""
    effect: Score
    effect_smoothed: Score
    """The same on smoothed images: what vanishes there is no protection."""
    retained: float | None
    """Share of the effect without handling that is left under this one."""
    behind_protected: Score | None
    """How much more effect ``protected`` has than this condition, paired; None for itself."""
    headline: bool = False
    """The first to be read of its attack, handling and condition."""


class ResultLines:
    """Lines of a result, from its attack rows."""

    def __init__(self, attacks: Sequence[AttackRow]) -> None:
        self._rows = {
            (row.attack, row.handling, row.condition, row.identity): row
            for row in attacks
            if row.status == "done"
        }
        self._scores = {key: _with_means(row.scores) for key, row in self._rows.items()}

    def lines(self) -> list[Line]:
        """All lines: attacks and handlings as they came, the headline first."""
        keys = dict.fromkeys((key[:3]) for key in self._rows if key[2] != CLEAN)
        return [line for key in keys for line in self._group(*key)]

    def _group(self, attack: str, handling: str, condition: str) -> list[Line]:
        """The headline, the mean beside it, then single judges."""
        scores = self._scores[
            next(key for key in self._rows if key[:3] == (attack, handling, condition))
        ]
        lines = {
            judge: line
            for judge in scores
            if (line := self._line(attack, handling, condition, judge)) is not None
        }
        singles = [line for judge, line in lines.items() if not judge.startswith(_FAMILY)]
        # Where a family has several judges, its line is that of their mean, which comes first.
        families = {
            line.family: line
            for line in reversed(lines.values())
            if line.family and not line.kin_of_loss
        }
        if families:
            worst = min(families.values(), key=lambda line: _first_number(line.effect.value))
            singles.insert(0, replace(worst, judge=WORST))
        return [replace(line, headline=not index) for index, line in enumerate(singles)]

    def _line(self, attack: str, handling: str, condition: str, judge: str) -> Line | None:
        people = self._people(attack, handling, condition)
        if not people:
            return None

        def column(of: str, name: str, under: str = handling) -> PerPerson:
            scores = [self._scores[attack, under, of, person][judge] for person in people]
            return np.array([getattr(score, name) for score in scores], dtype=np.float64)

        def triple(of: str, suffix: str = "", under: str = handling) -> tuple[PerPerson, ...]:
            return (
                column(CLEAN, f"leak{suffix}", under),
                column(of, f"leak{suffix}", under),
                column(of, f"floor{suffix}", under),
            )

        rows = [self._rows[attack, handling, condition, person] for person in people]
        score = self._scores[attack, handling, condition, people[0]][judge]
        clean, leaks, floors = triple(condition)
        kept = None
        if handling != "none" and set(people) <= set(self._people(attack, "none", condition)):
            kept = float(retained(*triple(condition, under="none"), *triple(condition)))
        behind = None
        if condition != PROTECTED and set(people) <= set(self._people(attack, handling, PROTECTED)):
            behind = bootstrap(effect_difference, clean, column(PROTECTED, "leak"), leaks, floors)
        return Line(
            attack=attack,
            handling=handling,
            condition=condition,
            judge=judge,
            family=score.family,
            in_loss=score.in_loss,
            kin_of_loss=score.kin_of_loss,
            num_people=len(people),
            leak_clean=float(clean.mean()),
            leak=float(leaks.mean()),
            floor=float(floors.mean()),
            identity_score=float(column(condition, "identity_score").mean()),
            face_detection_rate=float(np.mean([row.face_detection_rate for row in rows])),
            kid_clean=mean_of_known(
                [self._rows[attack, handling, CLEAN, person].kid for person in people]
            ),
            kid=mean_of_known([row.kid for row in rows]),
            effect=bootstrap(effect, clean, leaks, floors),
            effect_smoothed=bootstrap(effect, *triple(condition, "_smoothed")),
            retained=None if kept is None or math.isnan(kept) else kept,
            behind_protected=behind,
        )

    def _people(self, attack: str, handling: str, condition: str) -> list[str]:
        """People of whom there are both the condition and the clean attack."""
        return [
            key[3]
            for key in self._rows
            if key[:3] == (attack, handling, condition)
            and (attack, handling, CLEAN, key[3]) in self._rows
        ]


_FAMILY = "family "
_NUMBERS = ("leak", "identity_score", "leak_smoothed", "floor", "floor_smoothed")


def _with_means(scores: Sequence[JudgeScore]) -> dict[str, JudgeScore]:
    """Scores by judge, and before them means: of each family of several judges outside every
    loss, over families, or of judges in no loss where no family is outside."""
    singles = {score.judge: score for score in scores}
    outside: dict[str, list[JudgeScore]] = {}
    for score in singles.values():
        if not score.kin_of_loss:
            outside.setdefault(score.family, []).append(score)
    families = {
        f"{_FAMILY}{family}": _mean(of_family, f"{_FAMILY}{family}", family)
        for family, of_family in outside.items()
    }
    means = {name: of for name, of in families.items() if len(outside[of.family]) > 1}
    in_no_loss = [score for score in singles.values() if not score.in_loss]
    if len(families) > 1:
        means[OUTSIDE] = _mean(list(families.values()), OUTSIDE)
    elif in_no_loss and not families:
        means[NO_LOSS] = _mean(in_no_loss, NO_LOSS)
    return {**means, **singles}


def _mean(scores: Sequence[JudgeScore], judge: str, family: str = "") -> JudgeScore:
    """Numbers averaged; none of these judges was in a loss."""
    numbers: dict[str, Any] = {
        name: float(np.mean([getattr(score, name) for score in scores])) for name in _NUMBERS
    }
    is_kin = any(score.kin_of_loss for score in scores)
    return JudgeScore(judge=judge, family=family, kin_of_loss=is_kin, **numbers)


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known, None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _first_number(value: float) -> float:
    """Sorts numbers before what is none."""
    return value if math.isfinite(value) else math.inf


def summary_json(
    lines: Sequence[Line], visibility: Mapping[str, Mapping[str, float | None]], **more: Any
) -> dict[str, Any]:
    """The content of ``summary.json``; numbers that are none become null."""
    content = {**more, "visibility": visibility, "lines": [asdict(line) for line in lines]}
    cleaned: dict[str, Any] = _without_nan(content)
    return cleaned


def lines_of(summary: Mapping[str, Any]) -> list[Line]:
    """The lines of a ``summary.json``, the inverse of ``summary_json``."""
    scores = ("effect", "effect_smoothed", "behind_protected")
    return [
        Line(**{**line, **{name: _score(line[name]) for name in scores}})
        for line in summary["lines"]
    ]


def _score(columns: Mapping[str, Any] | None) -> Score | None:
    if columns is None:
        return None
    value = columns["value"]
    return Score(**{**columns, "value": math.nan if value is None else value})


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
