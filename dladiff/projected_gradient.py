"""Signed gradient steps inside a budget, for any loss of images.

Knows a loss, the projection around the clean image and the bounds. Knows nothing of diffusion,
faces or encoders; both layers use it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.errors import GradientError
from dladiff.image_values import Images, Perturbation, Scalar, require_unit_range


@dataclass(frozen=True)
class ProjectedGradientConfig:
    """Budget and steps on the [0, 1] scale (1/255 is one level)."""

    epsilon: float
    step_size: float
    num_steps: int
    momentum: float = 0.0
    """Decay of the accumulated gradient; 0 is plain PGD."""


def project(perturbation: Perturbation, clean: Images, epsilon: float) -> Perturbation:
    """Clips a perturbation to its budget and to what keeps the image in [0, 1].

    ``clip(delta, -eta, eta)``, then ``clip(x + delta, 0, 1) - x``, around the **original** x.
    """
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
    epsilon: float,
) -> Perturbation:
    """One step that raises the loss: ``project(delta + step_size * sign(gradient))``."""
    return project(perturbation + step_size * gradient.sign(), clean, epsilon)


def dead_gradient(gradient: Perturbation) -> Float[Tensor, " batch"]:
    """1 for each image whose gradient is zero everywhere or not finite, else 0.

    Add these up over a stage and hand the sum to ``require_live_gradient`` at its end: a check
    at every step would wait for the device each time.
    """
    largest = gradient.abs().amax(dim=(1, 2, 3))
    return (~((largest > 0) & torch.isfinite(largest))).to(torch.float32)


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


def ascend_within_budget(
    clean: Images,
    loss_fn: Callable[[Images], Scalar],
    config: ProjectedGradientConfig,
    start: Perturbation | None = None,
) -> Images:
    """Perturbs images so that a loss rises, never leaving the budget.

    Iterated signed gradient of Madry et al. 2018 (arXiv:1706.06083, eq. 1), with momentum if
    configured.

    Args:
        clean: Images to perturb; not modified.
        loss_fn: Differentiable in its argument. Its own randomness (timestep, noise) is drawn
            anew at every step.
        config: Budget, step size, number of steps, momentum.
        start: First perturbation; None: zero.

    Returns:
        Detached images, at most ``config.epsilon`` from ``clean`` in every value.

    Raises:
        ValueError: If ``clean`` has values outside [0, 1].
        GradientError: If a gradient was zero or not finite.
    """
    require_unit_range(clean)
    clean = clean.detach()
    perturbation = torch.zeros_like(clean) if start is None else start.detach()
    momentum = torch.zeros_like(clean)
    num_dead_steps = torch.zeros(clean.shape[0], device=clean.device)
    for _ in range(config.num_steps):
        perturbation = perturbation.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss_fn(clean + perturbation), perturbation)
        num_dead_steps += dead_gradient(gradient)
        momentum = accumulate(momentum, gradient, config.momentum)
        perturbation = signed_step(
            perturbation.detach(), momentum, clean, config.step_size, config.epsilon
        )
    require_live_gradient(num_dead_steps, "projected gradient")
    return clean + perturbation
