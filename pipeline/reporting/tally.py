"""Running numbers of one run: photos by status, throughput, time left.

The one count of a run: the driver, the display and the metrics read it. It prints nothing.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.options import PlanCounts, RunOutcome
from pipeline.reach import Reach
from pipeline.reporting.reporter import DecidedSet, Reporter

_WINDOW_SETS = 32
"""Throughput is that of so many last sets, so that an early stall does not spoil the estimate."""
_MIN_SEEN_S = 5.0
"""Steps of fewer seconds promise nothing."""


class Tally(Reporter):
    """Counts what the hooks report, heard before all other reporters of the run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._begin, 0)], _WINDOW_SETS + 1)
        self.plan: PlanCounts | None = None
        self.stage_name = "starting"
        self.statuses: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.reach = Reach()
        self.num_sets = 0
        self.num_held = 0
        self.gpu_seconds = 0.0
        self._at_work: Callable[[], Mapping[str, float]] = dict
        self._num_without_work = 0
        """Photos of sets in which none was protected: decided at once, so they say nothing of the
        time that others take."""
        self._first_seen: tuple[float, float] | None = None
        """When work was seen first, and how many photos' worth."""

    def started(self, plan: PlanCounts) -> None:
        self.plan = plan

    def stage(self, name: str) -> None:
        self.stage_name = name
        if not self.num_sets:  # loading models is no throughput
            self._recent[0] = (self._clock(), 0)

    def set_decided(self, decided: DecidedSet) -> None:
        self.statuses.update(decided.statuses)
        self.reach += decided.reach
        self.num_sets += 1
        if self._first_seen is None:
            self._first_seen = self._recent[0][0], 0.0
        if not PROTECTED_STATUSES.intersection(decided.statuses):
            self._num_without_work += sum(decided.statuses.values())
        self.gpu_seconds += decided.gpu_seconds
        self._recent.append((self._clock(), sum(decided.statuses.values())))

    def at_work(self, done: Callable[[], Mapping[str, float]]) -> None:
        self._at_work = done

    def held(self, num_photos: int) -> None:
        self.num_held += num_photos

    def released(self, num_photos: int, ages_s: Sequence[float]) -> None:
        self.num_held -= num_photos

    def deferred(self, cause: str) -> None:
        self.causes[cause] += 1

    def finished(self, outcome: RunOutcome) -> None:
        self.stage_name = "finished"

    @property
    def seconds(self) -> float:
        """Wall seconds since the run began."""
        return self._clock() - self._begin

    @property
    def num_photos(self) -> int:
        """Photos decided so far."""
        return self.statuses.total()

    @property
    def photos_done(self) -> float:
        """Photos decided, and the share that is done of those at work."""
        done = self.num_photos + sum(self._at_work().values())
        if done and self._first_seen is None:
            self._first_seen = self._clock(), done
        return done if self.plan is None else min(done, float(self.plan.num_photos))

    @property
    def num_left(self) -> int:
        """Planned photos that are not decided yet."""
        return 0 if self.plan is None else max(0, self.plan.num_photos - self.num_photos)

    @property
    def backlog(self) -> int:
        """Photos that are not decided yet or held back, those left for a later run included."""
        return self.num_left + self.num_held + (0 if self.plan is None else self.plan.num_later)

    @property
    def num_failed(self) -> int:
        """Failed and quarantined photos."""
        return self.statuses["failed"] + self.statuses["quarantined"]

    @property
    def failed_share(self) -> float:
        """Share of failed and quarantined photos among the decided ones."""
        return self.num_failed / self.num_photos if self.num_failed else 0.0

    @property
    def photos_per_s(self) -> float:
        """Decided photos per wall second over the last sets; 0 before the first set."""
        recent = list(self._recent)
        num_photos = sum(number for _, number in recent[1:])
        elapsed = self._clock() - recent[0][0]
        return num_photos / elapsed if num_photos and elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated wall seconds until the last planned photo; None while unknown.

        By the last sets where there are many, else by all steps since the first one.
        """
        if self.plan is None:
            return None
        done = self.photos_done
        rate = self.photos_per_s if self.num_sets >= _WINDOW_SETS else self._steps_rate(done)
        return (self.plan.num_photos - done) / rate if rate > 0 else None

    def _steps_rate(self, done: float) -> float:
        """Photos' worth of work per second since work was seen first; 0 while that is too short."""
        since, before = self._first_seen or (self._clock(), done)
        elapsed = self._clock() - since
        worked = done - before - self._num_without_work
        return worked / elapsed if elapsed >= _MIN_SEEN_S else 0.0
