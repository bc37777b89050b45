"""Running numbers of a run: throughput, time left, and how they are written."""

import pytest

from pipeline.options import PlanCounts
from pipeline.reporting.reporter import DecidedSet
from pipeline.reporting.tally import Tally
from pipeline.reporting.words import format_bytes, format_count, format_duration


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_from_the_rate_since_the_last_stage_began() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.started(PlanCounts(num_photos=100, num_sets=10))
    clock.now += 1000  # loading models must not count as slow work
    tally.stage("protect")
    for _ in range(2):
        clock.now += 5
        tally.set_decided(DecidedSet({"protected": 9, "skipped": 1}, seconds=5))
    assert tally.photos_per_s == pytest.approx(2.0)
    assert tally.seconds_left == pytest.approx(40.0)
    assert tally.statuses == {"protected": 18, "skipped": 2}


def test_time_left_is_unknown_before_the_first_set() -> None:
    tally = Tally(Clock())
    assert tally.seconds_left is None
    tally.started(PlanCounts(num_photos=10, num_sets=1))
    assert tally.seconds_left is None


def test_sets_without_work_promise_nothing_of_the_others() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.started(PlanCounts(num_photos=10, num_sets=10))
    clock.now += 6
    tally.set_decided(DecidedSet({"skipped": 1}, seconds=0.1))
    tally.set_decided(DecidedSet({"copied": 1}, seconds=0.1))
    assert tally.seconds_left is None
    clock.now += 14
    tally.set_decided(DecidedSet({"protected": 1}, seconds=20))
    assert tally.seconds_left == pytest.approx(7 * 20)


def test_a_stall_lowers_the_rate_though_no_set_is_decided() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.started(PlanCounts(num_photos=100, num_sets=10))
    clock.now += 10
    tally.set_decided(DecidedSet({"protected": 10}, seconds=10))
    before = tally.photos_per_s
    clock.now += 90
    assert tally.photos_per_s == pytest.approx(before / 10)


def test_only_the_last_sets_count_for_the_rate() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.started(PlanCounts(num_photos=1000, num_sets=1000))
    clock.now += 10_000
    for _ in range(100):
        clock.now += 2
        tally.set_decided(DecidedSet({"protected": 1}, seconds=2))
    assert tally.photos_per_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (5 * 3600 + 130, "5 h 02 min"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_bytes_and_counts_read_naturally() -> None:
    assert [format_bytes(n) for n in (0, 999, 3_400_000, 512e9)] == [
        "0 B",
        "999 B",
        "3.4 MB",
        "512 GB",
    ]
    assert format_count(1, "photo") == "1 photo"
    assert format_count(1204, "identity", "identities") == "1,204 identities"
