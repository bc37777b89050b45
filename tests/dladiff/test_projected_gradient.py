"""The loop and the projection: budget, range, momentum and dead gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dladiff.errors import GradientError
from dladiff.projected_gradient import (
    ProjectedGradientConfig,
    accumulate,
    ascend_within_budget,
    dead_gradient,
    project,
    random_start,
    require_live_gradient,
)
from dladiff.randomness import keyed_generator


def _images(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 5, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 0.25), spread=st.floats(0, 3))
@settings(max_examples=50, deadline=None)
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
@settings(max_examples=20, deadline=None)
def test_projecting_twice_changes_nothing(seed: int) -> None:
    clean = _images(seed)
    once = project(_images(seed + 1) - 0.5, clean, 0.1)
    torch.testing.assert_close(project(once, clean, 0.1), once, rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**31), levels=st.integers(0, 32))
@settings(max_examples=20, deadline=None)
def test_rounded_result_stays_within_whole_levels(seed: int, levels: int) -> None:
    clean = (_images(seed) * 255).round() / 255
    added = project((_images(seed + 1) - 0.5), clean, levels / 255)
    change = ((clean + added) * 255).round() - (clean * 255).round()
    assert int(change.abs().max()) <= levels


def test_result_stays_within_budget_and_pixel_range_and_raises_the_loss() -> None:
    clean = _images(3)
    goal = _images(4)

    def loss_fn(images: torch.Tensor) -> torch.Tensor:
        return -(images - goal).square().mean()

    config = ProjectedGradientConfig(epsilon=0.05, step_size=0.01, num_steps=20, momentum=0.5)
    result = ascend_within_budget(clean, loss_fn, config)
    assert float((result - clean).abs().max()) <= 0.05 + 1e-6
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1
    assert float(loss_fn(result)) > float(loss_fn(clean))


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
    config = ProjectedGradientConfig(epsilon=0.05, step_size=0.01, num_steps=2)
    with pytest.raises(GradientError, match="zero or not finite in 2 steps"):
        ascend_within_budget(_images(0), lambda images: (images * 0).sum(), config)


def test_live_gradients_pass() -> None:
    require_live_gradient(torch.zeros(4), "any stage")


def test_images_in_another_range_are_refused() -> None:
    config = ProjectedGradientConfig(epsilon=0.05, step_size=0.01, num_steps=2)
    with pytest.raises(ValueError, match=r"expected image values in \[0, 1\], got \[-0.99"):
        ascend_within_budget(_images(0) * 2 - 1, lambda images: images.sum(), config)


def test_random_start_is_the_same_for_the_same_key() -> None:
    clean = _images(0)
    starts = [random_start(clean, 0.1, keyed_generator(1, "photo", "start")) for _ in range(2)]
    assert torch.equal(*starts)
    assert float(starts[0].abs().max()) <= 0.1
    assert float(starts[0].abs().mean()) > 0.01
