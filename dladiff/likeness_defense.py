"""One loop that spends both layers' budgets in faces: what models learn and what adapters read.

Steps on what the autoencoder shows (L_id, layer 1) and steps on the photo itself (layer 2) move
one perturbation within one budget, so that neither undoes the other [X]. Knows both losses as
gradients; computes none itself.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.config import LikenessSettings
from dladiff.image_values import levels_to_unit
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.own_losses import LikenessGradients
from dladiff.photo_at_work import PhotoAtWork
from dladiff.visibility_control import VisibilityControl

NUM_LOOKS = 10
"""Of each photo, over which the stop rule averages: a look is another view, handling and noise."""
NUM_SETTLING_STEPS = 10
"""Of falling size, once the rule is met: a loop that ends amid large steps leaves flicker."""


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
    """By all encoders of the loop."""
    finishing: PhotoLikeness
    """By those that say whether the target is met."""


def defend_likeness(
    photos: Sequence[PhotoAtWork],
    through_model: LikenessGradients,
    on_photo: PhotoLosses | None,
    settings: LikenessSettings,
    on_progress: Callable[[float], None],
) -> int:
    """Takes all steps on all photos of a person, in place; fewer where the stop rule is met.

    With a target of visibility what is seen of every face holds its steps back.
    Finishing steps, on the photo alone, come last: they only move faces that still ask for it.

    Args:
        photos: With faces, each at the start of its ascent.
        through_model: L_id.
        on_photo: Layer 2's loss; None where layer 2 is off: then every step is L_id's.
        settings: Number, size and order of steps, and the stop rule.
        on_progress: Called after each step with the fraction done.

    Returns:
        The number of steps taken, without the finishing ones.

    Raises:
        GradientError: If the gradient of a photo was zero or not finite.
    """
    rule, step_sizes = LikenessStop(settings.stop_cosine), all_step_sizes(settings)
    visibility = VisibilityControl(photos, settings.visibility_jod)
    num_finishing = 0 if on_photo is None else settings.finishing_steps
    step = 0
    while step < len(step_sizes):
        visibility.before_step(step)
        step_size = levels_to_unit(step_sizes[step])
        is_photo_step = step % settings.photo_step_every == settings.photo_step_every - 1
        if on_photo is not None and is_photo_step:
            # A face that is unlike enough has no gradient: its momentum goes on alone.
            _step_on_photo(photos, on_photo.in_loop, step, step_size, settings.momentum)
        else:
            gradients, cosines = through_model.gradients(photos, step)
            for photo, gradient in zip(photos, gradients, strict=True):
                photo.ascent.step(gradient, step_size, settings.momentum)
            rule.add(cosines)
            if rule.is_met():
                step_sizes = settled(step_sizes, step + 1, settings.photo_step_every)
        step += 1
        visibility.after_step(step)
        on_progress(step / (len(step_sizes) + num_finishing))
    if on_photo is not None:
        for number in range(num_finishing):
            visibility.before_step(step + number)
            # Without momentum a face that asks for no more stays as it is.
            step_size = levels_to_unit(settings.step_size_levels * (1 - number / num_finishing))
            _step_on_photo(photos, on_photo.finishing, settings.num_steps + number, step_size, 0.0)
            visibility.after_step(step + number + 1)
            on_progress((step + number + 1) / (step + num_finishing))
    visibility.finish()
    for photo in photos:
        photo.ascent.require_live(f"likeness, photo {photo.key}")
    return step


def _step_on_photo(
    photos: Sequence[PhotoAtWork],
    on_photo: PhotoLikeness,
    step: int,
    step_size: float,
    momentum: float,
) -> None:
    for photo, gradient in zip(photos, on_photo.gradients(photos, step), strict=True):
        photo.ascent.step(gradient, step_size, momentum, may_vanish=True)


def all_step_sizes(settings: LikenessSettings) -> list[float]:
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
