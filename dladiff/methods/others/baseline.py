"""What all baselines share: signed steps up a gradient until the effort is spent.

Knows when to ask for a gradient. What it is the gradient of, each baseline says itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor

from dladiff.ascent_loop import Step, ascend
from dladiff.methods.image_gradients import LatentGradient, draw_step, perturbation_gradients
from dladiff.methods.others.person import AS_PAPERS_LOOK, Person
from dladiff.photo_at_work import NativePhoto, PhotoAtWork


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
        """The gradient of the loss that is raised, to each photo's perturbation."""

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
        name = type(self).__name__
        photos = [instance.photo for instance in self.person.instances]
        if not ascend(photos, self._steps(on_progress), name):
            raise ValueError(f"{name}: the effort was spent before the first step; grant more")

    def _steps(self, on_progress: Callable[[float], None] | None) -> Iterator[Step[PhotoAtWork]]:
        person, effort = self.person, self.person.effort
        self.prepare()
        while effort.share < 1:
            size = person.settings.step_size_levels * self.step_scale(effort.share)
            self.before_step(effort.num_taken)
            yield Step(lambda _: self.gradients(effort.num_taken), size)
            effort.num_taken += 1
            if on_progress is not None:
                on_progress(effort.share)


class LatentBaseline(Baseline):
    """Raises a loss of the latents E(v(x + delta)) at drawn timesteps and noise."""

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.looks = AS_PAPERS_LOOK
        self.timestep_weights: Tensor | None = None

    @abstractmethod
    def latent_gradient(self, step: int) -> LatentGradient:
        """Whose gradient this step follows."""

    def gradients(self, step: int) -> list[NativePhoto]:
        person, settings = self.person, self.person.settings
        draws = [
            draw_step(
                instance, self.looks, person.diffusion, settings.seed, step, self.timestep_weights
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
