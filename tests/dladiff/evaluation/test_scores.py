"""Scores against definitions written out independently."""

import numpy as np
import pytest
from scipy import stats

from dladiff.evaluation.scores import (
    auc,
    bootstrap,
    effect,
    effect_difference,
    face_detection_rate,
    identity_score,
    leak,
    retained,
)

CLEAN = np.array([0.5, 0.4, 0.6])
FLOOR = np.array([0.1, 0.0, 0.1])


def test_leak_is_detection_rate_times_identity_score() -> None:
    cosines = np.array([0.8, 0.0, 0.4, 0.0])
    found = np.array([True, False, True, False])
    assert identity_score(cosines, found) == pytest.approx((0.8 + 0.4) / 2)
    assert leak(cosines) == pytest.approx(
        face_detection_rate(found) * identity_score(cosines, found)
    )


def test_no_face_at_all_leaks_nothing() -> None:
    nothing = np.zeros(3), np.zeros(3, dtype=bool)
    assert leak(nothing[0]) == 0 == identity_score(*nothing)


def test_effect_is_one_at_the_floor_zero_at_the_clean_leak_and_linear_between() -> None:
    assert effect(CLEAN, FLOOR, FLOOR) == pytest.approx(1)
    assert effect(CLEAN, CLEAN, FLOOR) == pytest.approx(0)
    assert effect(CLEAN, (CLEAN + FLOOR) / 2, FLOOR) == pytest.approx(0.5)


def test_effect_of_several_people_is_the_ratio_of_sums() -> None:
    protected = np.array([0.2, 0.4, 0.1])
    taken, room = 0.0, 0.0
    for person in range(3):
        taken += CLEAN[person] - protected[person]
        room += CLEAN[person] - FLOOR[person]
    assert effect(CLEAN, protected, FLOOR) == pytest.approx(taken / room)


def test_effect_is_no_number_where_the_attack_learns_nothing() -> None:
    assert np.isnan(effect(FLOOR, FLOOR, FLOOR))


def test_retained_compares_each_effect_under_its_own_handling() -> None:
    protected, handled_clean = (CLEAN + FLOOR) / 2, CLEAN * 0.9
    handled = FLOOR + 0.75 * (handled_clean - FLOOR)
    share = retained(CLEAN, protected, FLOOR, handled_clean, handled, FLOOR)
    assert share == pytest.approx(0.25 / 0.5)


def test_one_person_has_no_interval() -> None:
    score = bootstrap(effect, CLEAN[:1], FLOOR[:1], FLOOR[:1])
    assert (score.value, score.low, score.high, score.num_people) == (1.0, None, None, 1)


def test_the_interval_of_a_mean_is_that_of_another_bootstrap() -> None:
    values = np.random.default_rng(5).normal(0.4, 0.2, 12)
    ours = bootstrap(lambda column: np.mean(column, axis=-1), values)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_pairing_makes_a_constant_difference_certain_although_people_differ_much() -> None:
    clean = np.array([0.2, 0.5, 0.8, 0.4])
    floor = np.zeros(4)
    ours, theirs = 0.5 * clean, 0.7 * clean
    score = bootstrap(effect_difference, clean, ours, theirs, floor)
    assert score.low == pytest.approx(0.2)
    assert score.high == pytest.approx(0.2)


def test_columns_of_different_people_are_refused() -> None:
    with pytest.raises(ValueError, match="one length over at least one person"):
        bootstrap(effect, CLEAN, FLOOR[:2], FLOOR)


def test_auc_is_the_chance_of_the_right_order() -> None:
    assert auc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert auc([1.0], [1.0, 2.0, 0.0]) == 0.5
    random = np.random.default_rng(0)
    high, low = random.normal(1, 1, 4000), random.normal(0, 1, 4000)
    # Of two normal distributions one standard deviation apart: Phi(1 / sqrt(2)).
    assert auc(high.tolist(), low.tolist()) == pytest.approx(0.760, abs=0.015)
