"""Signed gradient steps inside a budget, for any loss of images.

Knows the projection around the clean image and the bounds. Knows nothing of diffusion, faces or
encoders; both layers use it.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.errors import GradientError
from dladiff.image_values import Images, Perturbation
from dladiff.visibility import band_allowances, fade_visible_bands, weigh_bands

Budget = float | Float[Tensor, "1 1 height width"]
"""epsilon on the [0, 1] scale, one for all values or one for each pixel."""


def project(perturbation: Perturbation, clean: Images, epsilon: Budget) -> Perturbation:
    """Clips a perturbation to its budget and to what keeps the image in [0, 1].

    ``clip(delta, -eta, eta)``, then ``clip(x + delta, 0, 1) - x``, around the **original** x.
    """
    if isinstance(epsilon, Tensor):
        bounded = torch.minimum(torch.maximum(perturbation, -epsilon), epsilon)
    else:
        bounded = perturbation.clamp(-epsilon, epsilon)
    return (clean + bounded).clamp(0.0, 1.0) - clean


def accumulate(momentum: Perturbation, gradient: Perturbation, decay: float) -> Perturbation:
    """Adds a gradient of unit mean magnitude to the decayed sum of the earlier ones.

    Momentum iterative FGSM, Dong et al. 2018 (arXiv:1710.06081, eq. 6), per image.
    """
    scale = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
    return decay * momentum + gradient / scale


def signed_step(
    perturbation: Perturbation,
    gradient: Perturbation,
    clean: Images,
    step_size: float,
    epsilon: Budget,
) -> Perturbation:
    """One step that raises the loss: ``project(delta + step_size * sign(gradient))``."""
    return project(perturbation + step_size * gradient.sign(), clean, epsilon)


_FIRST_STEPS = 6
"""Steps whose mean magnitude says what a step of ordinary size is."""
_LARGEST = 3.0
"""The largest step of a value, in ordinary ones: few pixels would take all else."""
_DECAY = 0.2
"""Strength of the decay after each step in proportion; with fewer steps it must be more [X]."""
_EXPONENT = 0.7
"""Exponent of bands' allowances; 1 is the whole Newton step, which tints [X, measured]."""
_NEWEST_SHARE = 0.36
"""Weight of the newest allowances in their running mean."""


def dead_gradient(gradient: Perturbation, may_vanish: bool = False) -> Float[Tensor, " batch"]:
    """1 for each image whose gradient is zero everywhere (unless it may be) or not finite, else 0.

    Add these up over a stage and hand the sum to ``require_live_gradient`` at its end: a check
    at every step would wait for the device each time.
    """
    largest = gradient.abs().amax(dim=(1, 2, 3))
    is_live = torch.isfinite(largest) & ((largest > 0) | may_vanish)
    return (~is_live).to(torch.float32)


def require_live_gradient(num_dead_steps: Float[Tensor, " batch"], stage: str) -> None:
    """Refuses a stage in which an image had steps without a usable gradient.

    Raises:
        GradientError: With the stage and the largest number of such steps.
    """
    worst = int(num_dead_steps.max()) if num_dead_steps.numel() else 0
    if worst > 0:
        raise GradientError(
            f"{stage}: the image gradient was zero or not finite in {worst} steps; "
            "the photo would not be protected"
        )


def random_start(clean: Images, epsilon: float, generator: torch.Generator) -> Perturbation:
    """Uniform noise within the budget, drawn on the CPU so that any device starts equal."""
    noise = torch.rand(clean.shape, generator=generator) * 2.0 - 1.0
    return project(noise.to(clean) * epsilon, clean, epsilon)


@dataclass(eq=False)
class GradientAscent:
    """One image on which losses are raised: the running state of every attack of ours.

    Iterated signed gradient of Madry et al. 2018 (arXiv:1706.06083, eq. 1), with momentum (Dong et
    al. 2018) where asked for. Whoever holds it computes gradients of whatever loss, in whatever
    order; each ``step`` keeps the perturbation within the budget around ``clean``.
    """

    clean: Images
    """A batch of one in [0, 1]: what the perturbation is added to and projected around."""
    epsilon: Budget
    perturbation: Perturbation
    momentum: Perturbation | None = None
    """Decayed sum of earlier gradients; None before the first step with momentum."""
    num_dead_steps: Float[Tensor, " batch"] = field(default_factory=lambda: torch.zeros(1))
    """Steps whose gradient was zero or not finite; see ``require_live``."""
    restraint: Perturbation | None = None
    """None: signed steps. Else steps in proportion to the gradient less this, in ordinary steps:
    the direction in which what is seen grows; each is followed by a decay of the bands that are
    seen best (``visibility``)."""
    allowances: Float[Tensor, "bands 1 3 1 1"] | None = None
    """Weights of a step's bands, once it is known what is seen."""
    first_magnitudes: list[Float[Tensor, ""]] = field(default_factory=list)
    """Mean magnitudes of the momentum at the first steps in proportion."""

    @classmethod
    def begin(
        cls, clean: Images, epsilon: Budget, start: float, generator: torch.Generator
    ) -> "GradientAscent":
        """Starts at noise of at most ``start`` ([0, 1]): many losses have no gradient at 0."""
        return cls(
            clean=clean,
            epsilon=epsilon,
            perturbation=project(random_start(clean, start, generator), clean, epsilon),
            num_dead_steps=torch.zeros(len(clean), device=clean.device),
        )

    @property
    def images(self) -> Images:
        """The perturbed image, in [0, 1]."""
        return self.clean + self.perturbation

    def leaf(self) -> Perturbation:
        """The perturbation as a fresh leaf, for a loss that shall have a gradient to it."""
        return self.perturbation.detach().requires_grad_(True)

    def step(
        self,
        gradient: Perturbation,
        step_size: float,
        decay: float = 0.0,
        may_vanish: bool = False,
    ) -> None:
        """One signed step of ``step_size`` ([0, 1] scale) that raises the loss.

        Args:
            gradient: Of the loss to the perturbation.
            step_size: Change of each value.
            decay: Of the momentum; 0: plain PGD, and the momentum is left alone.
            may_vanish: The loss may be content, with a gradient of zero; infinite ones still count
                as dead.
        """
        self.num_dead_steps += dead_gradient(gradient, may_vanish)
        direction = gradient
        if decay:
            former = torch.zeros_like(gradient) if self.momentum is None else self.momentum
            direction = self.momentum = accumulate(former, gradient, decay)
        if self.restraint is not None:
            self._step_in_proportion(direction, step_size, self.restraint, has_momentum=decay > 0)
            return
        self.perturbation = signed_step(
            self.perturbation, direction, self.clean, step_size, self.epsilon
        )

    def _step_in_proportion(
        self,
        direction: Perturbation,
        step_size: float,
        restraint: Perturbation,
        has_momentum: bool,
    ) -> None:
        """A step of ``step_size`` on average where the budget is whole, then the decay [X].

        Gradients that contradict each other make small steps of momentum, since the first ones set
        the scale; without momentum each step has its own scale.
        """
        share = self.budget_share()
        magnitude = (direction.abs() * share).sum() / (3 * share.sum()).clamp_min(1e-30)
        if has_momentum:
            if len(self.first_magnitudes) < _FIRST_STEPS:
                self.first_magnitudes.append(magnitude)
            magnitude = torch.stack(self.first_magnitudes).mean()
        wanted = (direction / magnitude.clamp_min(1e-30)).clamp(-_LARGEST, _LARGEST)
        # A face that asks for no more, and has no momentum, keeps what it has.
        asks = direction.abs().amax() > 0
        step = share * (wanted - restraint)
        if self.allowances is not None:
            is_seen = restraint.abs().amax(dim=1, keepdim=True) > 0
            step = weigh_bands(step, self.allowances, is_seen)
        moved = project(self.perturbation + asks * step_size * step, self.clean, self.epsilon)
        faded = project(fade_visible_bands(moved, share, _DECAY), self.clean, self.epsilon)
        self.perturbation = torch.where(asks, faded, moved)

    def restrain(self, restraint: Perturbation) -> None:
        """Holds the next steps back by what is seen, and lets them go where less is seen [X].

        Bands of the step are weighted by what costs the eye equally, which makes it nearly a Newton
        step of the Lagrangian: plain ones settle in fine bands long before coarse ones do.

        Args:
            restraint: Where and how what is seen grows, in mean steps; 0 where nobody looks.
        """
        self.restraint = restraint
        found = band_allowances(self.perturbation, restraint) ** _EXPONENT
        former = found if self.allowances is None else self.allowances
        self.allowances = former.lerp(found, _NEWEST_SHARE)

    def budget_share(self) -> Float[Tensor, "1 1 height width"]:
        """Each pixel's budget as a share of the largest one, in [0, 1]."""
        share = torch.ones_like(self.clean[:, :1]) * self.epsilon
        return share / share.amax().clamp_min(1e-30)

    def require_live(self, stage: str) -> None:
        """Refuses if any step so far had no usable gradient: no protection would result.

        Raises:
            GradientError: With the stage and the number of such steps.
        """
        require_live_gradient(self.num_dead_steps, stage)
