"""The loop and the projection: budget, range, momentum and dead gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dladiff.errors import GradientError
from dladiff.projected_gradient import (
    GradientAscent,
    accumulate,
    dead_gradient,
    project,
    random_start,
    require_live_gradient,
)
from dladiff.randomness import keyed_generator


def _images(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 5, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 0.25), spread=st.floats(0, 3))
@settings(max_examples=50)
def test_projection_stays_within_budget_and_pixel_range(
    seed: int, epsilon: float, spread: float
) -> None:
    clean = _images(seed)
    wild = (_images(seed + 1) - 0.5) * spread
    projected = project(wild, clean, epsilon)
    assert float(projected.abs().max()) <= epsilon + 1e-6
    assert float((clean + projected).min()) >= -1e-6
    assert float((clean + projected).max()) <= 1 + 1e-6


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_projecting_twice_changes_nothing(seed: int) -> None:
    clean = _images(seed)
    once = project(_images(seed + 1) - 0.5, clean, 0.1)
    torch.testing.assert_close(project(once, clean, 0.1), once, rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**31), levels=st.integers(0, 32))
@settings(max_examples=20)
def test_rounded_result_stays_within_whole_levels(seed: int, levels: int) -> None:
    clean = (_images(seed) * 255).round() / 255
    added = project((_images(seed + 1) - 0.5), clean, levels / 255)
    change = ((clean + added) * 255).round() - (clean * 255).round()
    assert int(change.abs().max()) <= levels


def raised(
    clean: torch.Tensor, loss_fn: Callable[[torch.Tensor], torch.Tensor], steps: int
) -> GradientAscent:
    """An ascent after some steps; starts at zero."""
    ascent = GradientAscent(clean, 0.05, torch.zeros_like(clean))
    ascent.num_dead_steps = torch.zeros(len(clean))
    for _ in range(steps):
        leaf = ascent.leaf()
        (gradient,) = torch.autograd.grad(loss_fn(clean + leaf), leaf)
        ascent.step(gradient, 0.01, decay=0.5)
    return ascent


def test_result_stays_within_budget_and_pixel_range_and_raises_the_loss() -> None:
    clean = _images(3)
    goal = _images(4)

    def loss_fn(images: torch.Tensor) -> torch.Tensor:
        return -(images - goal).square().mean()

    ascent = raised(clean, loss_fn, 20)
    assert float(ascent.perturbation.abs().max()) <= 0.05 + 1e-6
    assert float(ascent.images.min()) >= 0
    assert float(ascent.images.max()) <= 1
    assert float(loss_fn(ascent.images)) > float(loss_fn(clean))
    ascent.require_live("any stage")


def test_each_pixel_may_have_a_budget_of_its_own() -> None:
    clean = _images(3, batch=1)
    epsilon = torch.linspace(0, 0.1, 30).view(1, 1, 6, 5)
    ascent = GradientAscent.begin(clean, epsilon, 0.2, keyed_generator(0, "start"))
    assert bool((ascent.perturbation.abs() <= epsilon + 1e-7).all())
    for seed in range(8):
        ascent.step(_images(seed, batch=1) - 0.5, 0.05)
        assert bool((ascent.perturbation.abs() <= epsilon + 1e-7).all())
    assert float(ascent.perturbation[..., 0, 0].abs().max()) == 0
    assert float(ascent.perturbation.abs().max()) > 0.09


def test_a_step_without_momentum_leaves_the_momentum_alone() -> None:
    ascent = GradientAscent(_images(0, 1), 0.05, torch.zeros_like(_images(0, 1)))
    ascent.step(_images(1, 1) - 0.5, 0.01)
    assert ascent.momentum is None
    ascent.step(_images(2, 1) - 0.5, 0.01, decay=0.9)
    before = ascent.momentum
    ascent.step(_images(3, 1) - 0.5, 0.01)
    assert ascent.momentum is before


def test_momentum_is_the_decayed_sum_of_gradients_of_unit_mean_magnitude() -> None:
    gradients = [_images(seed) - 0.5 for seed in range(3)]
    momentum = torch.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = accumulate(momentum, gradient, 0.9)
    expected = np.zeros(momentum.shape)
    for gradient in gradients:
        values = gradient.numpy().astype(np.float64)
        expected = 0.9 * expected + values / np.abs(values).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(momentum.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_dead_gradients_are_told_per_image() -> None:
    gradient = torch.ones(3, 3, 2, 2)
    gradient[1] = 0
    gradient[2, 0, 0, 0] = float("nan")
    assert dead_gradient(gradient).tolist() == [0, 1, 1]


def test_a_loss_without_gradient_is_refused() -> None:
    ascent = raised(_images(0), lambda images: (images * 0).sum(), 2)
    with pytest.raises(GradientError, match=r"a stage: .* zero or not finite in 2 steps"):
        ascent.require_live("a stage")


def test_a_content_loss_may_have_no_gradient_but_never_an_infinite_one() -> None:
    ascent = GradientAscent(_images(0, 1), 0.05, torch.zeros_like(_images(0, 1)))
    ascent.step(torch.zeros_like(ascent.clean), 0.01, 0.9, may_vanish=True)
    ascent.require_live("content")
    ascent.step(torch.full_like(ascent.clean, float("nan")), 0.01, 0.9, may_vanish=True)
    with pytest.raises(GradientError, match="in 1 steps"):
        ascent.require_live("broken")


def test_live_gradients_pass() -> None:
    require_live_gradient(torch.zeros(4), "any stage")


def test_random_start_is_the_same_for_the_same_key() -> None:
    clean = _images(0)
    starts = [random_start(clean, 0.1, keyed_generator(1, "photo", "start")) for _ in range(2)]
    assert torch.equal(*starts)
    assert float(starts[0].abs().max()) <= 0.1
    assert float(starts[0].abs().mean()) > 0.01
