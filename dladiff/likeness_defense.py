"""One loop that spends both layers' budgets in faces: what models learn and what adapters read.

Steps on what the autoencoder shows (L_id, layer 1) and steps on the photo itself (layer 2) move
one perturbation within one budget, so that neither undoes the other [X]. Knows both losses as
gradients; computes none itself.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.ascent_loop import Step, ascend
from dladiff.config import LoopSettings
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.own_losses import LikenessGradients
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.visibility_control import VisibilityControl

MOMENTUM = 0.9
"""Decay of the sum of earlier gradients in the loop."""
NUM_LOOKS = 10
"""Looks at each photo over which the stop rule averages: a look is another view, handling and
noise."""
NUM_SETTLING_STEPS = 10
"""Steps of falling size once the stop rule is met: a loop that ends amid large steps leaves
flicker."""
NUM_CONTENT_STEPS = 4
"""Finishing steps in a row, each another view and handling, in which no face of a photo asks for
more, after which the photo is left alone."""


class LikenessStop:
    """The stop rule: does any photo still show more of its person than is wanted? [X]

    The measure is the mean, over the last looks at what the autoencoder shows, of the cosine that
    the encoder which sees most has of each photo. Handled looks are among them, so it is a mean of
    before and after handling. The photo that shows most decides.
    """

    def __init__(self, target_cosine: float | None) -> None:
        """``target_cosine`` None: never."""
        self.target_cosine = target_cosine
        self._looks: deque[Float[Tensor, " photos"]] = deque(maxlen=NUM_LOOKS)
        self._num_looks = 0

    def add(self, cosines: Float[Tensor, " photos"]) -> None:
        """Adds a look at each photo; NaN where it showed no face."""
        self._looks.append(cosines)
        self._num_looks += 1

    def is_met(self) -> bool:
        """Asked after each look; answers on every tenth, since it waits for the device."""
        if self.target_cosine is None or self._num_looks % NUM_LOOKS or not self._num_looks:
            return False
        shown = torch.stack([*self._looks]).nanmean(dim=0)
        return bool((shown <= self.target_cosine).all())


@dataclass(frozen=True)
class PhotoLosses:
    """Layer 2's loss twice: what is wanted of a photo, and what must be reached on it."""

    in_loop: PhotoLikeness
    """The loss by all encoders of the loop."""
    finishing: PhotoLikeness
    """The loss by those encoders that say whether the target is met."""


class LikenessSchedule:
    """The steps of the loop in their order; fewer once the stop rule is met.

    What the autoencoder shows and what the photo shows take turns. Finishing steps, on the photo
    alone, come last: they only move faces that still ask for it.
    """

    def __init__(
        self,
        through_model: LikenessGradients,
        on_photo: PhotoLosses | None,
        settings: LoopSettings,
    ) -> None:
        """Plans all steps.

        Args:
            through_model: L_id.
            on_photo: Layer 2's loss; None where layer 2 is off: then every step is L_id's.
            settings: Number, size and order of steps, and the stop rule.
        """
        self._through_model, self._on_photo, self._settings = through_model, on_photo, settings
        self._rule, self._sizes = LikenessStop(settings.stop_cosine), all_step_sizes(settings)
        self.num_taken = 0
        """Steps that were handed out, without the finishing ones."""

    def __len__(self) -> int:
        """All steps as planned now."""
        return len(self._sizes) + self._num_finishing

    @property
    def _num_finishing(self) -> int:
        return 0 if self._on_photo is None else self._settings.finishing_steps

    def __iter__(self) -> Iterator[Step[PhotoAtWork]]:
        settings, on_photo = self._settings, self._on_photo
        every = settings.photo_step_every
        while (number := self.num_taken) < len(self._sizes):
            self.num_taken += 1
            size, momentum = self._sizes[number], MOMENTUM
            if on_photo is not None and number % every == every - 1:
                # A face that is unlike enough has no gradient: its momentum goes on alone.
                loss = partial(on_photo.in_loop.gradients, step=number)
                yield Step(loss, size, momentum, may_vanish=True)
            else:
                turn = number if on_photo is None else settings.looks_before(number)
                yield Step(partial(self._heard, draw=number, turn=turn), size, momentum)
        if on_photo is None:
            return
        finishing = _Finishing(on_photo.finishing)
        for number in range(self._num_finishing):
            # Without momentum a face that asks for no more stays as it is.
            size = settings.step_size_levels * (1 - number / self._num_finishing)
            draw = settings.num_steps + number
            yield Step(partial(finishing.gradients, step=draw), size, may_vanish=True)
            if finishing.is_done():
                return

    def _heard(self, photos: Sequence[PhotoAtWork], draw: int, turn: int) -> Sequence[NativePhoto]:
        """L_id's gradients; what a model was seen to show is for the stop rule."""
        gradients, shown = self._through_model.gradients(photos, draw, turn)
        self.hear(shown)
        return gradients

    def hear(self, cosines: Float[Tensor, " photos"]) -> None:
        """Takes what a model was seen to show; ends soon where that is little enough."""
        self._rule.add(cosines)
        if self._rule.is_met():
            every = self._settings.photo_step_every
            self._sizes = settled(self._sizes, self.num_taken, every)


class _Finishing:
    """Layer 2's loss for photos with a face that still asks; others are left alone."""

    def __init__(self, on_photo: PhotoLikeness) -> None:
        self._on_photo = on_photo
        self._asked: list[Float[Tensor, " photos"]] = []
        self._photos: Sequence[PhotoAtWork] = ()

    def gradients(self, photos: Sequence[PhotoAtWork], step: int) -> Sequence[NativePhoto | None]:
        """The gradients of photos that ask for more; None for those that are content."""
        self._photos = photos
        asking = [photo for photo in photos if not photo.is_content]
        found = iter(self._on_photo.gradients(asking, step))
        gradients = [None if photo.is_content else next(found) for photo in photos]
        none = torch.zeros((), device=photos[0].device)
        largest = [none if one is None else one.abs().amax() for one in gradients]
        self._asked.append(torch.stack(largest))
        return gradients

    def is_done(self) -> bool:
        """Whether all are content; looked at now and then, since it waits for the device."""
        if len(self._asked) == NUM_CONTENT_STEPS:
            asked = torch.stack(self._asked).amax(dim=0).tolist()
            self._asked.clear()
            for photo, asks in zip(self._photos, asked, strict=True):
                photo.is_content = photo.is_content or not asks
        return bool(self._photos) and all(photo.is_content for photo in self._photos)


def defend_likeness(
    photos: Sequence[PhotoAtWork],
    schedule: LikenessSchedule,
    visibility: VisibilityControl,
    on_progress: Callable[[float], None],
) -> None:
    """Takes all steps of a schedule on all photos of a person, in place.

    Args:
        photos: With faces, each at the start of its ascent.
        schedule: Which loss rises when, and how far each step goes.
        visibility: What is seen of every face holds its steps back.
        on_progress: Called after each step with the fraction done.

    Raises:
        GradientError: If the gradient of a photo was zero or not finite.
    """
    ascend(photos, _watched(schedule, visibility, on_progress), "likeness")


def _watched(
    schedule: LikenessSchedule,
    visibility: VisibilityControl,
    on_progress: Callable[[float], None],
) -> Iterator[Step[PhotoAtWork]]:
    """The steps of a schedule, each held back by what is seen by then."""
    for number, step in enumerate(schedule):
        visibility.before_step(number)
        yield step
        visibility.after_step(number + 1)
        on_progress((number + 1) / len(schedule))
    visibility.finish()
    on_progress(1.0)


def all_step_sizes(settings: LoopSettings) -> list[float]:
    """Levels; they fall linearly from twice the mean step to a tenth of it."""
    count = settings.num_steps
    return [settings.step_size_levels * max(0.1, 2 * (1 - step / count)) for step in range(count)]


def settled(step_sizes: list[float], taken: int, photo_step_every: int) -> list[float]:
    """The sizes of a shorter loop, which falls from where it is to the same end.

    Args:
        step_sizes: Of all steps, as planned.
        taken: So many have been taken.
        photo_step_every: The last step looks at the photo, as in the whole loop.
    """
    end = taken + NUM_SETTLING_STEPS
    end += -end % photo_step_every
    if end >= len(step_sizes):
        return step_sizes
    now, last = step_sizes[taken - 1], step_sizes[-1]
    left = [1 - number / (end - taken) for number in range(1, end - taken + 1)]
    return step_sizes[:taken] + [last + (now - last) * share for share in left]
