"""What the driver says of a run while it works: the hooks, and how several listeners hear them.

Knows counts, stages and times. Sees no identity and no file name, so it cannot show one, but for
the folders that a person has to open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.options import PlanCounts, RunOutcome
from pipeline.reach import Reach


@dataclass(frozen=True)
class DecidedSet:
    """One photo set, as counts and times."""

    statuses: Mapping[str, int]
    """Photos by status (``records.RowStatus``)."""
    seconds: float
    """Wall seconds the worker spent on the set."""
    gpu_seconds: float = 0.0
    """Seconds of that on an accelerator."""
    ages_s: Sequence[float] = ()
    """Seconds since each published photo was uploaded, where that is known."""
    reach: Reach = field(default_factory=Reach)
    """What the set reached, and whom it leaves out."""


class Reporter:
    """Hooks that the driver calls, always from its main thread. This one says nothing."""

    def started(self, plan: PlanCounts) -> None:
        """The plan is made; sets follow."""

    def denied(self, places: Sequence[str]) -> None:
        """Folders of INPUT that may not be read; their URIs may name persons."""

    def stage(self, name: str) -> None:
        """The driver enters a stage, e.g. ``catalog``, ``workers``, ``protect``, ``fold``."""

    def set_decided(self, decided: DecidedSet) -> None:
        """One photo set is decided, and published unless it is ``held`` back."""

    def worked(self, stage_seconds: Mapping[str, float]) -> None:
        """A worker has committed a photo set, and spent so many wall seconds on each stage."""

    def workers(self, num_wanted: int, num_alive: Callable[[], int]) -> None:
        """The pool starts; ``num_alive`` says how many of the workers wanted live when asked."""

    def at_work(self, done: Callable[[], Mapping[str, float]]) -> None:
        """The pool starts; ``done`` says, when asked, how many photos' worth of work is done of
        each set that is not decided yet."""

    def held(self, num_photos: int) -> None:
        """More decided photos wait for the gate of a new method: ``num_photos`` of them."""

    def released(self, num_photos: int, ages_s: Sequence[float]) -> None:
        """Photos that waited are published; ``ages_s`` as in ``DecidedSet``."""

    def deferred(self, cause: str) -> None:
        """The environment kept one photo set from being decided."""

    def message(self, text: str) -> None:
        """One line for a person, free of names of persons and files."""

    def finished(self, outcome: RunOutcome) -> None:
        """The run ended, well or not; called once, last."""


class Reporters(Reporter):
    """Hands every hook on to several reporters, in their order."""

    def __init__(self, *reporters: Reporter) -> None:
        for hook in (name for name in vars(Reporter) if not name.startswith("_")):
            setattr(self, hook, _handed_on([getattr(one, hook) for one in reporters]))


def _handed_on(hooks: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call_all(*heard: object) -> None:
        for hook in hooks:
            hook(*heard)

    return call_all
