"""The adapter's own losses, and that its sampler is the one that everybody else uses."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tools.training.builds import BUILDS
from tools.training.captions import MAX_TOKENS
from tools.training.train_adapter import identity_loss, sample_latents, varied_crops
from tools.training.train_unet import Denoiser, sampling_scheduler


def test_identity_loss_wants_the_own_person_and_not_just_anybody() -> None:
    targets = torch.eye(4, 6)
    right, own, others = identity_loss(targets, targets)
    assert (float(own), float(others)) == pytest.approx((1.0, 0.0))
    swapped = identity_loss(targets.roll(1, 0), targets)[0]
    alike = nn.functional.normalize(targets.sum(dim=0, keepdim=True)).expand(4, -1)
    same_for_all, own, others = identity_loss(alike, targets)
    assert float(own) == pytest.approx(float(others)) == pytest.approx(0.5)
    assert right < same_for_all < swapped


def test_the_sampler_is_ddim_and_its_gradient_reaches_the_first_noise() -> None:
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def predict(latents: Tensor, times: Tensor, ids: Tensor, embeds: Tensor) -> Tensor:
        return weight * latents + times.view(-1, 1, 1, 1) / 1000

    noise = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    sampled = sample_latents(predict, noise, torch.zeros(2, 1), torch.zeros(2, 1), 4)  # type: ignore[arg-type]

    abar = sampling_scheduler().alphas_cumprod.double()
    expected = noise
    for timestep, before in ((751, 501), (501, 251), (251, 1), (1, None)):
        error = weight.detach() * expected + timestep / 1000
        clean = (expected - (1 - abar[timestep]).sqrt() * error) / abar[timestep].sqrt()
        kept = abar[0] if before is None else abar[before]
        expected = kept.sqrt() * clean + (1 - kept).sqrt() * error
    torch.testing.assert_close(sampled.detach(), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(sampled.sum(), weight)
    assert float(gradient) != 0


def test_varied_crops_keep_the_face_in_place() -> None:
    images = torch.zeros(1, 3, 128, 128)
    images[..., 50:90, 44:84] = 1
    for seed in range(8):
        crops = varied_crops(images, torch.Generator().manual_seed(seed))
        assert crops.shape == (1, 3, 112, 112)
        assert float(crops[..., 60:75, 45:65].mean()) > 0.95


@pytest.mark.slow
def test_the_adapter_is_silent_at_scale_zero_and_heard_otherwise() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(BUILDS["faces-128"]).eval()
    batch = SimpleNamespace(
        noisy=torch.randn(1, 8, 16, 16),
        timesteps=torch.tensor([500]),
        ids=torch.ones(1, MAX_TOKENS, dtype=torch.long),
    )
    with torch.no_grad():
        alone = denoiser(batch.noisy, batch.timesteps, batch.ids)
        told = [
            denoiser(batch.noisy, batch.timesteps, batch.ids, embeds)
            for embeds in torch.eye(2, 128).unsqueeze(1)
        ]
        again = denoiser(batch.noisy, batch.timesteps, batch.ids)
    assert torch.equal(alone, again)
    assert not torch.allclose(told[0], told[1], atol=1e-6)
    assert not torch.allclose(alone, told[0], atol=1e-6)
