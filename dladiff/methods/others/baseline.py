"""The loop that all baselines share: signed steps up a gradient until the effort is spent.

Knows when to ask for a gradient. What it is the gradient of, each baseline says itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from dladiff.image_values import levels_to_unit
from dladiff.methods.image_gradients import LatentGradient, draw_step, perturbation_gradients
from dladiff.methods.others.person import Person
from dladiff.photo_at_work import NativePhoto


class Baseline(ABC):
    """One method of others at work on one person."""

    def __init__(self, person: Person) -> None:
        self.person = person

    def prepare(self) -> None:  # noqa: B027
        """What comes before the first step, such as training a surrogate."""

    def before_step(self, step: int) -> None:  # noqa: B027
        """What alternates with steps, such as training on the photos as they are now."""

    @abstractmethod
    def gradients(self, step: int) -> list[NativePhoto]:
        """Of the loss that is raised, to each photo's perturbation."""

    def step_scale(self, share: float) -> float:
        """Size of a step relative to the common one, after ``share`` of the effort."""
        return 1.0

    def run(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Takes steps until the effort is spent.

        Args:
            on_progress: Called after each step with the share of the effort that is spent.

        Raises:
            ValueError: If the effort did not suffice for a single step.
            GradientError: If a photo's gradient was zero or not finite.
        """
        person, effort = self.person, self.person.effort
        name = type(self).__name__
        self.prepare()
        while effort.share < 1:
            step_size = levels_to_unit(person.settings.step_size_levels)
            step_size *= self.step_scale(effort.share)
            self.before_step(effort.num_taken)
            gradients = self.gradients(effort.num_taken)
            for instance, gradient in zip(person.instances, gradients, strict=True):
                instance.photo.ascent.step(gradient, step_size)
            effort.num_taken += 1
            if on_progress is not None:
                on_progress(effort.share)
        if effort.num_taken == 0:
            raise ValueError(f"{name}: the effort was spent before the first step; grant more")
        for instance in person.instances:
            instance.photo.ascent.require_live(f"{name}, photo {instance.photo.key}")


class LatentBaseline(Baseline):
    """Raises a loss of the latents E(v(x + delta)) at drawn timesteps and noise."""

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.layer1 = person.layer1
        """Of the draws: view, handling, timesteps."""
        self.timestep_weights: Tensor | None = None

    @abstractmethod
    def latent_gradient(self, step: int) -> LatentGradient:
        """Whose gradient this step follows."""

    def gradients(self, step: int) -> list[NativePhoto]:
        person, settings = self.person, self.person.settings
        draws = [
            draw_step(
                instance, self.layer1, person.diffusion, settings.seed, step, self.timestep_weights
            )
            for instance in person.instances
        ]
        return perturbation_gradients(
            person.instances,
            draws,
            self.latent_gradient(step),
            person.diffusion,
            settings.micro_batch,
            person.cost,
        )
