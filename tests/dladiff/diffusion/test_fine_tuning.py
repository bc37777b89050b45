"""Few-step fine-tuning of a surrogate."""

import dataclasses

import pytest
import torch

from dladiff.config import SurrogateSettings
from dladiff.diffusion import fine_tuning
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import evaluation_pairs, mean_denoising_loss
from dladiff.diffusion.fine_tuning import FineTuner, learning_rate
from dladiff.diffusion.surrogates import open_surrogates
from dladiff.results import Cost


def settings_of(adaptation: str, **changes: float) -> SurrogateSettings:
    values = {"adaptation": adaptation, "lora_rank": 4, "learning_rate": 1e-2, **changes}
    return SurrogateSettings.model_validate(values)


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_training_lowers_the_loss_on_its_own_latents(
    diffusion: DiffusionModel, adaptation: str
) -> None:
    settings = settings_of(adaptation, learning_rate=1e-2 if adaptation == "lora" else 1e-3)
    latents = diffusion.encode(torch.rand(3, 3, 32, 32)).detach()
    pairs = evaluation_pairs(3, 4, diffusion, seed=0)
    repeated = latents.repeat_interleave(4, dim=0)
    cost = Cost()
    with open_surrogates(diffusion, settings, ("dynamic",), seed=0) as surrogates:
        surrogate = surrogates["dynamic"]

        def loss() -> float:
            return float(mean_denoising_loss(surrogate.predict, repeated, *pairs, diffusion, 12))

        before = loss()
        steps = FineTuner(surrogate, diffusion, settings, cost).train(
            latents, 20, torch.Generator().manual_seed(0)
        )
        assert loss() < 0.9 * before
    assert steps.shape == (20,)
    assert not steps.requires_grad
    assert cost.unet_forward_backward_pairs == 20 * 3


def test_gradients_are_clipped_to_the_norm(
    diffusion: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("lora")
    monkeypatch.setattr(fine_tuning, "MAX_GRAD_NORM", 1e-3)
    norms: list[float] = []
    with open_surrogates(diffusion, settings, ("dynamic",), seed=0) as surrogates:
        tuner = FineTuner(surrogates["dynamic"], diffusion, settings)

        def record() -> None:
            gradients = [
                w.grad.norm() for w in surrogates["dynamic"].weights() if w.grad is not None
            ]
            norms.append(float(torch.stack(gradients).norm()))

        monkeypatch.setattr(tuner.optimizer, "step", record)
        tuner.train(torch.randn(2, 4, 16, 16), 2, torch.Generator().manual_seed(0))
    assert norms == [pytest.approx(1e-3, rel=1e-3)] * 2


def test_reset_forgets_weights_and_moments(diffusion: DiffusionModel) -> None:
    settings = settings_of("lora")
    latents = torch.randn(2, 4, 16, 16)
    with open_surrogates(diffusion, settings, ("dynamic",), seed=0) as surrogates:
        tuner = FineTuner(surrogates["dynamic"], diffusion, settings)

        def train() -> list[torch.Tensor]:
            tuner.train(latents, 3, torch.Generator().manual_seed(0))
            return [weight.clone() for weight in surrogates["dynamic"].weights()]

        first, second = train(), train()
        tuner.reset()
        again = train()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_learning_rate_is_the_settings_then_the_checkpoints_then_stable_diffusions(
    diffusion: DiffusionModel,
) -> None:
    diffusion.learning_rates.clear()
    assert learning_rate(SurrogateSettings(), diffusion) == 1e-4
    assert learning_rate(SurrogateSettings(adaptation="full"), diffusion) == 5e-6
    diffusion.learning_rates["lora"] = 3e-3
    assert learning_rate(SurrogateSettings(), diffusion) == 3e-3
    assert learning_rate(SurrogateSettings(learning_rate=0.5), diffusion) == 0.5
    diffusion.learning_rates.clear()


def test_fewer_rows_a_pass_train_alike(diffusion: DiffusionModel) -> None:
    settings = settings_of("lora")
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for rows in (None, 2):
        by_rows = dataclasses.replace(diffusion, unet_rows_per_pass=rows)
        with open_surrogates(by_rows, settings, ("dynamic",), seed=0) as surrogates:
            tuner = FineTuner(surrogates["dynamic"], by_rows, settings)
            found.append(tuner.train(latents, 4, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=0)
    assert tuner.cost.unet_forward_backward_pairs == 4 * 3
