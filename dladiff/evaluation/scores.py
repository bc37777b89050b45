"""From cosines to scores: leak, effect, what handling leaves of it, and how sure that is.

Knows numbers only. All scores of a condition rest on the same people, so intervals come from a
paired bootstrap over people: photos and images of one person are no independent samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

NUM_RESAMPLES = 10_000
Cosines = Float[np.ndarray, " images"]
PerPerson = Float[np.ndarray, "*draws people"]
"""One value per person; with leading axes for draws of people, each reduced by itself."""
PerDraw = Float[np.ndarray, "*draws"] | float


@dataclass(frozen=True)
class Score:
    """A number over people with its 95 % interval."""

    value: float
    low: float | None
    """None for a single person, whose spread over people nobody knows."""
    high: float | None
    num_people: int


def leak(cosines: Cosines) -> float:
    """Mean cosine to the person over **all** images, 0 where no face was found."""
    return float(np.mean(cosines))


def face_detection_rate(found: Bool[np.ndarray, " images"]) -> float:
    """FDR: share of images in which a face was found."""
    return float(np.mean(found))


def identity_score(cosines: Cosines, found: Bool[np.ndarray, " images"]) -> float:
    """ISM: mean cosine over the images with a face; 0 if there is none. leak = FDR x ISM."""
    return float(np.mean(cosines[found])) if found.any() else 0.0


def effect(leak_clean: PerPerson, leak_protected: PerPerson, floor: PerPerson) -> PerDraw:
    """Share of the leak that protection takes away: 1 is back at the floor, 0 is nothing.

    A ratio of means over people, ``(clean - protected) / (clean - floor)``: the mean of ratios
    would be ruled by the person on whom the attack learns least. Not a number where the attack
    shows nothing of these people, since then nothing can be taken away.
    """
    room = np.mean(leak_clean - floor, axis=-1)
    return _ratio(np.mean(leak_clean - leak_protected, axis=-1), room)


def bootstrap(
    statistic: Callable[..., PerDraw],
    *columns: Float[np.ndarray, " _"],
    num_resamples: int = NUM_RESAMPLES,
) -> Score:
    """A statistic of columns with one value per person, and its percentile interval.

    People are drawn with replacement, the same ones for every column, with a fixed seed.
    Resamples in which the statistic is not a number are left out.

    Args:
        statistic: Of the columns, reducing their last axis: it gets all draws at once.
        columns: Of equal length, rows of the same people.
        num_resamples: How many.

    Raises:
        ValueError: If there are no people, or columns differ in length.
    """
    num_people = len(columns[0]) if columns else 0
    if num_people == 0 or any(len(column) != num_people for column in columns):
        lengths = [len(column) for column in columns]
        raise ValueError(f"expected columns of one length over at least one person, got {lengths}")
    value = float(statistic(*columns))
    if num_people == 1:
        return Score(value, None, None, 1)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, num_people, (num_resamples, num_people))
    values = np.asarray(statistic(*(column[draws] for column in columns)))
    values = values[np.isfinite(values)]
    if not len(values):
        return Score(value, None, None, num_people)
    low, high = np.quantile(values, [0.025, 0.975])
    return Score(value, float(low), float(high), num_people)


def effect_difference(
    leak_clean: PerPerson, leak_ours: PerPerson, leak_theirs: PerPerson, floor: PerPerson
) -> PerDraw:
    """How much more effect one protection has than another, against the same attack."""
    return effect(leak_clean, leak_ours, floor) - effect(leak_clean, leak_theirs, floor)


def retained(
    clean: PerPerson, protected: PerPerson, floor: PerPerson,
    clean_handled: PerPerson, protected_handled: PerPerson, floor_handled: PerPerson,
) -> PerDraw:  # fmt: skip
    """What handling leaves of the effect: ``effect_handled / effect_none``.

    Not a number where there was no effect to begin with.
    """
    before = effect(clean, protected, floor)
    after = effect(clean_handled, protected_handled, floor_handled)
    return _ratio(after, before)


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How well a score tells two kinds apart: the chance that one of the first has the higher.

    0.5 by guessing, 1 without error; equal scores count half (Mann and Whitney 1947).

    Args:
        higher: Scores of the kind that should have the higher ones; at least one.
        lower: Scores of the other kind; at least one.
    """
    first, second = np.asarray(higher)[:, None], np.asarray(lower)[None, :]
    return float(((first > second) + 0.5 * (first == second)).mean())


def _ratio(numerator: PerDraw, denominator: PerDraw) -> PerDraw:
    """Not a number where the denominator is not positive."""
    known = np.where(np.asarray(denominator) > 0, denominator, np.nan)
    ratio: PerDraw = (numerator / known)[()]
    return ratio
