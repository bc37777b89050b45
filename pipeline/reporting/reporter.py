"""What the driver says of a run while it works: the hooks, and how several listeners hear them.

Knows counts, stages and times. Sees no identity and no file name, so it cannot show one, but for
the folders that a person has to open.
"""

from collections.abc import Callable, Mapping, Sequence

from pipeline.options import PlanCounts, RunOutcome
from pipeline.reach import Reach

NO_REACH = Reach()


class Reporter:
    """Hooks that the driver calls, always from its main thread. This one says nothing."""

    def started(self, plan: PlanCounts) -> None:
        """The plan is made; sets follow."""

    def denied(self, places: Sequence[str]) -> None:
        """Folders of INPUT that may not be read; their URIs may name persons."""

    def stage(self, name: str) -> None:
        """The driver enters a stage, e.g. ``catalog``, ``preflight``, ``protect``, ``fold``."""

    def set_decided(
        self,
        statuses: Mapping[str, int],
        seconds: float,
        gpu_seconds: float = 0.0,
        ages_s: Sequence[float] = (),
        reach: Reach = NO_REACH,
    ) -> None:
        """One photo set is decided, and published unless it is ``held`` back.

        Args:
            statuses: Photos of the set by status (``records.RowStatus``).
            seconds: Wall seconds the worker spent on the set.
            gpu_seconds: Seconds of that on an accelerator.
            ages_s: Where known, seconds since each published photo was uploaded.
            reach: What the set reached, and whom it leaves out.
        """

    def worked(self, stage_seconds: Mapping[str, float]) -> None:
        """A worker has committed a photo set, and spent so many wall seconds on each stage."""

    def workers(self, num_wanted: int, num_alive: Callable[[], int]) -> None:
        """The pool starts; ``num_alive`` says how many of the workers wanted live when asked."""

    def at_work(self, done: Callable[[], Mapping[str, float]]) -> None:
        """The pool starts; ``done`` says, when asked, how many photos' worth of work is done of
        each set that is not decided yet."""

    def held(self, num_photos: int) -> None:
        """Hears that so many decided photos more wait for the gate of a new method."""

    def released(self, num_photos: int, ages_s: Sequence[float]) -> None:
        """Hears that so many photos that waited are published; ``ages_s`` as in ``set_decided``."""

    def deferred(self, cause: str) -> None:
        """The environment kept one photo set from being decided."""

    def message(self, text: str) -> None:
        """One line for a person, free of names of persons and files."""

    def finished(self, outcome: RunOutcome) -> None:
        """The run ended, well or not; called once, last."""


class Reporters(Reporter):
    """Hands every hook on to several reporters, in their order."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def started(self, plan: PlanCounts) -> None:
        for reporter in self._reporters:
            reporter.started(plan)

    def denied(self, places: Sequence[str]) -> None:
        for reporter in self._reporters:
            reporter.denied(places)

    def stage(self, name: str) -> None:
        for reporter in self._reporters:
            reporter.stage(name)

    def set_decided(
        self,
        statuses: Mapping[str, int],
        seconds: float,
        gpu_seconds: float = 0.0,
        ages_s: Sequence[float] = (),
        reach: Reach = NO_REACH,
    ) -> None:
        for reporter in self._reporters:
            reporter.set_decided(statuses, seconds, gpu_seconds, ages_s, reach)

    def worked(self, stage_seconds: Mapping[str, float]) -> None:
        for reporter in self._reporters:
            reporter.worked(stage_seconds)

    def workers(self, num_wanted: int, num_alive: Callable[[], int]) -> None:
        for reporter in self._reporters:
            reporter.workers(num_wanted, num_alive)

    def at_work(self, done: Callable[[], Mapping[str, float]]) -> None:
        for reporter in self._reporters:
            reporter.at_work(done)

    def held(self, num_photos: int) -> None:
        for reporter in self._reporters:
            reporter.held(num_photos)

    def released(self, num_photos: int, ages_s: Sequence[float]) -> None:
        for reporter in self._reporters:
            reporter.released(num_photos, ages_s)

    def deferred(self, cause: str) -> None:
        for reporter in self._reporters:
            reporter.deferred(cause)

    def message(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.message(text)

    def finished(self, outcome: RunOutcome) -> None:
        for reporter in self._reporters:
            reporter.finished(outcome)
