"""What all baselines share: signed steps up a gradient, as many as the settings say.

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
        """Size of a step relative to the common one, after ``share`` of the steps."""
        return 1.0

    def run(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Takes the steps.

        Args:
            on_progress: Called after each step with the share of the steps that is done.

        Raises:
            GradientError: If a photo's gradient was zero or not finite.
        """
        photos = [instance.photo for instance in self.person.instances]
        ascend(photos, self._steps(on_progress), type(self).__name__)

    def _steps(self, on_progress: Callable[[float], None] | None) -> Iterator[Step[PhotoAtWork]]:
        person, loop = self.person, self.person.settings.loop
        self.prepare()
        while person.num_taken < loop.num_steps:
            size = loop.step_size_levels * self.step_scale(person.share_taken)
            self.before_step(person.num_taken)
            yield Step(lambda _: self.gradients(person.num_taken), size)
            person.num_taken += 1
            if on_progress is not None:
                on_progress(person.share_taken)


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
