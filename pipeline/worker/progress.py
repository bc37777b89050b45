"""How much of a photo set is done while it is computed, told now and then.

Knows the stages that a method goes through. Waits for no device: a step is done when it was begun.
"""

import time
from collections.abc import Callable

from dladiff.config import MethodSettings

SayProgress = Callable[[str, float], None]
"""Takes a set's key and how many photos' worth of its work is done."""

_MEASURING = 0.05
"""Share of a group's work that is left once the last step is done."""


class SetProgress:
    """Progress of one set, whose groups of photos are computed one after the other."""

    def __init__(
        self,
        set_key: str,
        method: MethodSettings,
        say: SayProgress,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            set_key: Of the set.
            method: Decides on the stages.
            say: Told at most once an interval.
            interval_s: Seconds between two tellings.
            clock: Monotonic seconds.
        """
        self._set_key, self._say = set_key, say
        self._stages = _stages(method)
        self._interval_s, self._clock = interval_s, clock
        self._told = clock() - interval_s
        self._before, self._num_photos, self._share = 0.0, 0, 0.0

    def begin_group(self, num_photos: int) -> None:
        """The next so many photos are computed; those before are done."""
        self._before += self._num_photos
        self._num_photos, self._share = num_photos, 0.0

    def hear(self, stage: str, fraction: float) -> None:
        """A step of a stage is done, as ``protect_photo_set`` tells it."""
        if stage == "measure":
            share = 1.0 - _MEASURING * (1.0 - fraction)
        elif stage in self._stages:
            steps = (self._stages.index(stage) + fraction) / len(self._stages)
            share = (1.0 - _MEASURING) * steps
        else:
            return
        self._share = max(self._share, share)  # a second try does not go back
        now = self._clock()
        if now - self._told >= self._interval_s:
            self._told = now
            self._say(self._set_key, self._before + self._share * self._num_photos)


def _stages(method: MethodSettings) -> tuple[str, ...]:
    """The stages whose steps take the time, in their order."""
    if method.likeness_leads:
        return ("likeness",)
    if method.other is not None:
        return ("layer1",)
    layers = {"layer1": method.reads_model, "layer2": method.looks_at_photo}
    return tuple(layer for layer, is_on in layers.items() if is_on)
