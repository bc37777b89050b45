"""Each face keeps the same JOD: what is seen holds the steps back as much as the measure asks.

A Lagrangian on ColorVideoVDP: steps go where they protect most for what they show, and the weight
of what they show follows the measure, face by face, since the same levels show on smooth skin and
vanish in texture. Knows photos at work and the measure; raises no loss of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dladiff.image_values import Images, Perturbation
from dladiff.photo_at_work import PhotoAtWork
from dladiff.projected_gradient import GradientAscent, project
from dladiff.results import Face
from dladiff.visible_difference import face_visibility_gradient, face_visibility_jod

_FIRST_STEP = 4
"""Before it the change is noise, whose gradient says little."""
STEPS_BETWEEN_GRADIENTS = 2
"""Each costs half a step; at every third one protects less at the same JOD [X, measured]."""
STEPS_BETWEEN_LOOKS = 4
"""The change follows its restraint within about as many steps."""
_START = 0.8
"""Weight of what is seen, where most faces settle."""
_GAIN = 3.0
"""The weight becomes ``exp(gain * (target - JOD))`` times what it was."""
_SMALLEST, _LARGEST = 0.02, 8.0
_LARGEST_STEP = 3.0
"""The largest restraint of a value, in mean ones, as for steps."""
_MOST_SCALINGS = 8
"""At the end, for faces whose last steps missed the target."""
_SURPLUS = 0.1
"""Above the target, from which a face gets more change: its levels were not spent."""
_LARGEST_FACTOR = 1.5
"""The largest scaling up at once; its direction is right for small changes of size alone."""


@dataclass(eq=False)
class _Held:
    """One photo whose faces are held, and the weight of what is seen of each."""

    photo: PhotoAtWork
    seen_clean: Images
    """The clean photo as its file would hold it: what coding alone costs is no change of ours."""
    nearest: Int[Tensor, "height width"]
    """Number of the face to whose part of the photo a pixel belongs."""
    weights: Float[Tensor, " faces"]

    @property
    def ascent(self) -> GradientAscent:
        """The photo's ascent."""
        return self.photo.ascent

    def jods(self) -> Float[Tensor, " faces"]:
        """The JOD of each face on the photo as its file would show it now."""
        seen = self.photo.as_served((self.ascent.images * 255).round() / 255)
        faces = self.photo.faces
        return torch.stack([face_visibility_jod(self.seen_clean, seen, face) for face in faces])

    def restraint(self) -> Perturbation:
        """The direction in which faces show more, each in mean steps times its weight.

        One face at a time: those of a group do not fit into memory together.
        """
        clean, change = self.ascent.clean, self.ascent.perturbation
        share, total = self.ascent.budget_share(), torch.zeros_like(change)
        for number, face in enumerate(self.photo.faces):
            gradient = face_visibility_gradient(clean, change, face)
            is_seen = (gradient.abs().amax(dim=1, keepdim=True) > 0) * share
            mean = (gradient.abs() * share).sum() / (3 * is_seen.sum()).clamp_min(1e-30)
            ordinary = (gradient / mean.clamp_min(1e-30)).clamp(-_LARGEST_STEP, _LARGEST_STEP)
            total += self.weights[number] * (self.nearest == number) * ordinary
        return total

    def scale(self, factors: Float[Tensor, " faces"]) -> None:
        """Multiplies the change of each face, within the budget."""
        scaled = self.ascent.perturbation * factors[self.nearest]
        self.ascent.perturbation = project(scaled, self.ascent.clean, self.ascent.epsilon)


class VisibilityControl:
    """Holds each face at a target of visibility [X]."""

    def __init__(self, photos: Sequence[PhotoAtWork], target_jod: float | None) -> None:
        """From now on the photos' steps are in proportion, and held back; without a target not.

        Args:
            photos: With faces, each at the start of its ascent.
            target_jod: What each face keeps, at twice its size; None: nothing is done.
        """
        self.target_jod = target_jod or 0.0
        self._held = [] if target_jod is None else [_held(photo) for photo in photos]
        for held in self._held:
            held.ascent.restraint = torch.zeros_like(held.ascent.perturbation)

    def before_step(self, step: int) -> None:
        """Looks where the change of each face is seen."""
        if step < _FIRST_STEP or step % STEPS_BETWEEN_GRADIENTS:
            return
        for held in self._moving():
            held.ascent.restrain(held.photo.in_its_channels(held.restraint()))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Now and then measures each face, and corrects the weight of what is seen."""
        if step <= _FIRST_STEP or step % STEPS_BETWEEN_LOOKS:
            return
        for held in self._moving():
            factors = (_GAIN * (self.target_jod - held.jods())).exp()
            held.weights = (held.weights * factors).clamp(_SMALLEST, _LARGEST)

    def _moving(self) -> list[_Held]:
        return [held for held in self._held if not held.photo.is_content]

    @torch.no_grad()
    def finish(self) -> None:
        """Scales the change of faces that show more than is wanted, or much less."""
        for held in self._held:
            for _ in range(_MOST_SCALINGS):
                jods = held.jods()
                shows_more, shows_less = jods < self.target_jod, jods > self.target_jod + _SURPLUS
                if not bool((shows_more | shows_less).any()):
                    break
                # What is seen grows about as the square root of the change's cube.
                ratios = ((10 - self.target_jod) / (10 - jods).clamp_min(1e-3)) ** (2 / 3)
                factors = torch.where(shows_more, ratios.clamp(max=0.99), 1.0)
                factors = torch.where(shows_less, ratios.clamp(max=_LARGEST_FACTOR), factors)
                held.scale(factors)


def _held(photo: PhotoAtWork) -> _Held:
    device = photo.clean.device
    nearest = _nearest_face(photo.size, photo.faces).to(device)
    weights = torch.full((len(photo.faces),), _START, device=device)
    return _Held(photo, photo.as_served(photo.ascent.clean), nearest, weights)


def _nearest_face(size: tuple[int, int], faces: Sequence[Face]) -> Int[Tensor, "height width"]:
    """The face whose change each pixel shows: the nearest, in sides of its box from its centre."""
    rows = torch.arange(size[0], dtype=torch.float32)[:, None]
    columns = torch.arange(size[1], dtype=torch.float32)[None, :]
    nearest = torch.zeros(size, dtype=torch.int64)
    smallest = torch.full(size, torch.inf)
    for number, face in enumerate(faces):  # one at a time: those of a group take a gigabyte
        left, top, right, bottom = face.box
        x, y = columns - (left + right) / 2, rows - (top + bottom) / 2
        distance = (x.square() + y.square()).sqrt() / max(right - left, bottom - top)
        nearest[distance < smallest] = number
        smallest = torch.minimum(smallest, distance)
    return nearest
