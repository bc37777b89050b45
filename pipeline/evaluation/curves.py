"""Curves instead of points: the effect of each method's trees against what they show and cost.

Trees of one method at several budgets go by the names ``method@18``, ``method@12``; together they
are one line. Knows numbers and names of conditions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.summary import OUTSIDE, Line

SEPARATOR = "@"


@dataclass(frozen=True)
class CurvePoint:
    """One tree under one attack and handling."""

    attack: str
    handling: str
    method: str
    condition: str
    effect: float
    """The effect by the headline: the worst family outside every loss where there is one."""
    effect_mean: float | None
    """Mean of the families outside every loss; None where there is none."""
    judge: str
    """Whose word ``effect`` is."""
    lpips: float | None
    """Median over the attacked photos, as the next."""
    psnr_db: float | None
    face_visibility_jod: float | None
    """JOD of faces at twice their size, median."""
    cpu_seconds: float | None
    """Seconds of a photo."""


def curve_points(
    lines: Sequence[Line],
    visibility: Mapping[str, Mapping[str, float | None]],
    cpu_seconds: Mapping[str, float],
) -> list[CurvePoint]:
    """The headline of every condition beside what it shows and costs; names of trees, nobody's."""
    means = {
        (line.attack, line.handling, line.condition): line.effect.value
        for line in lines
        if line.judge == OUTSIDE
    }
    return [
        CurvePoint(
            attack=line.attack,
            handling=line.handling,
            method=line.condition.partition(SEPARATOR)[0],
            condition=line.condition,
            effect=line.effect.value,
            effect_mean=means.get((line.attack, line.handling, line.condition)),
            judge=line.judge,
            lpips=visibility.get(line.condition, {}).get("lpips_median"),
            psnr_db=visibility.get(line.condition, {}).get("psnr_db_median"),
            face_visibility_jod=visibility.get(line.condition, {}).get(
                "face_visibility_jod_median"
            ),
            cpu_seconds=cpu_seconds.get(line.condition),
        )
        for line in lines
        if line.headline
    ]
