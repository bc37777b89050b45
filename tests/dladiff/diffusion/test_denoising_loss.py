"""The forward process and the denoising loss, against diffusers and finite differences."""

import pytest
import torch

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import (
    add_noise,
    denoising_loss,
    draw_timesteps,
    prediction_target,
)
from tests.layer1_scenes import in_float64


def rows(count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    latents, noise = torch.randn(2, count, 4, 16, 16, generator=generator)
    return latents, torch.tensor([1, 400, 999])[:count], noise


def test_noise_is_added_as_the_scheduler_does(diffusion: DiffusionModel) -> None:
    latents, timesteps, noise = rows()
    expected = diffusion.noise_scheduler.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(add_noise(latents, timesteps, noise, diffusion), expected)


def test_target_is_the_noise_or_the_schedulers_velocity(
    diffusion: DiffusionModel, velocity_diffusion: DiffusionModel
) -> None:
    latents, timesteps, noise = rows()
    assert prediction_target(latents, timesteps, noise, diffusion) is noise
    velocity = velocity_diffusion.noise_scheduler.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(
        prediction_target(latents, timesteps, noise, velocity_diffusion), velocity
    )


def test_a_perfect_prediction_has_no_loss(velocity_diffusion: DiffusionModel) -> None:
    latents, timesteps, noise = rows()
    target = prediction_target(latents, timesteps, noise, velocity_diffusion)
    loss = denoising_loss(lambda x, t: target, latents, timesteps, noise, velocity_diffusion)
    assert loss.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["diffusion", "velocity_diffusion"])
def test_gradient_to_the_latents_agrees_with_finite_differences(
    kind: str, request: pytest.FixtureRequest
) -> None:
    diffusion = in_float64(request.getfixturevalue(kind))
    latents, timesteps, noise = (x.double() if x.is_floating_point() else x for x in rows(2))
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).double()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return denoising_loss(diffusion.predict, z, timesteps, noise, diffusion).sum()

    leaf = latents.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = 1e-5
    difference = (loss(latents + step * direction) - loss(latents - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-9)


def test_timesteps_cover_one_to_nine_hundred_ninety_nine() -> None:
    drawn = draw_timesteps(200_000, torch.Generator().manual_seed(0), "uniform")
    assert (int(drawn.min()), int(drawn.max())) == (1, 999)
    assert abs(float(drawn.double().mean()) - 500) < 2


def test_stratified_timesteps_have_one_in_each_part() -> None:
    for seed in range(50):
        drawn = draw_timesteps(4, torch.Generator().manual_seed(seed))
        assert [int((t - 1) / (999 / 4)) for t in drawn] == [0, 1, 2, 3]


def test_timesteps_of_a_large_gradient_are_preferred() -> None:
    weights = torch.tensor([0.0, 3.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    drawn = draw_timesteps(4000, generator, "gradient", weights)
    assert int(drawn.min()) > 333
    assert 0.7 < float((drawn <= 666).double().mean()) < 0.8
    with pytest.raises(ValueError, match="needs the weights"):
        draw_timesteps(4, generator, "gradient")
