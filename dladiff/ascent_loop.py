"""The one loop: every attack of ours, the paper's and others' is a sequence of steps in it.

A method is a generator of steps. What alternates with them, such as training a surrogate on the
photos as they are now, stands between two ``yield``; a stop rule is a ``return``. Knows neither
photos nor faces nor any loss.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from dladiff.image_values import Perturbation, levels_to_unit
from dladiff.projected_gradient import GradientAscent


@runtime_checkable
class AtWork(Protocol):
    """What bears a perturbation: a photo on its grid, or one face on its lattice."""

    @property
    def key(self) -> str:
        """The photo's key, for messages."""

    @property
    def ascent(self) -> GradientAscent:
        """Its perturbation, within its budget."""


Thing = TypeVar("Thing", bound=AtWork)


@dataclass(frozen=True)
class Step(Generic[Thing]):
    """One step of all: which loss rises, and how far it goes."""

    loss: Callable[[Sequence[Thing]], Sequence[Perturbation | None]]
    """To one gradient each; None: this one takes no step."""
    size_levels: float
    momentum: float = 0.0
    may_vanish: bool = False
    """Whether one may ask for no more, with a gradient of zero."""


def ascend(things: Sequence[Thing], steps: Iterable[Step[Thing]], stage: str) -> int:
    """Takes all steps on all, in place.

    Args:
        things: Each at the start of its ascent.
        steps: In their order; what comes may depend on how they went.
        stage: Names the method in an error.

    Returns:
        How many steps there were.

    Raises:
        GradientError: If the gradient of one was zero or not finite in any step.
    """
    taken = 0
    for step in steps:
        size = levels_to_unit(step.size_levels)
        for thing, gradient in zip(things, step.loss(things), strict=True):
            if gradient is not None:
                thing.ascent.step(gradient, size, step.momentum, step.may_vanish)
        taken += 1
    for thing in things:
        thing.ascent.require_live(f"{stage}, photo {thing.key}")
    return taken
