"""Surrogates on one UNet: frozen, apart from each other, and gone afterwards."""

from typing import Literal

import pytest
import torch

from dladiff.config import SurrogateSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.surrogates import Surrogate, open_surrogates

NAMES = ("static", "dynamic", "third")
KINDS = pytest.mark.parametrize("adaptation", ["lora", "full"])


def settings_of(adaptation: str) -> SurrogateSettings:
    return SurrogateSettings.model_validate({"adaptation": adaptation, "lora_rank": 2})


def noisy_rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([30, 800])


def change(surrogate: Surrogate) -> None:
    with torch.no_grad():
        for weight in surrogate.weights():
            weight.add_(0.05)


def requires_grad(diffusion: DiffusionModel, surrogates: dict[str, Surrogate]) -> bool:
    own = [weight for name in NAMES for weight in surrogates[name].weights()]
    return any(weight.requires_grad for weight in [*diffusion.unet.parameters(), *own])


@KINDS
def test_the_checkpoint_is_bit_identical_and_unwrapped_afterwards(
    diffusion: DiffusionModel, adaptation: Literal["lora", "full"]
) -> None:
    before = {name: weight.clone() for name, weight in diffusion.unet.state_dict().items()}
    modules = [name for name, _ in diffusion.unet.named_modules()]
    expected = diffusion.predict(*noisy_rows())
    with open_surrogates(diffusion, settings_of(adaptation), NAMES, seed=0) as surrogates:
        for name in NAMES:
            change(surrogates[name])
    after = diffusion.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [name for name, _ in diffusion.unet.named_modules()] == modules
    assert not hasattr(diffusion.unet, "peft_config")
    assert not any(p.requires_grad for p in diffusion.unet.parameters())
    assert not any(module.training for module in diffusion.unet.modules())
    torch.testing.assert_close(diffusion.predict(*noisy_rows()), expected, rtol=0, atol=0)
    with pytest.raises(KeyError):
        surrogates["static"]


@KINDS
def test_adapters_are_gone_after_a_failure_too(
    diffusion: DiffusionModel, adaptation: Literal["lora", "full"]
) -> None:
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        open_surrogates(diffusion, settings_of(adaptation), NAMES, seed=0) as surrogates,
        surrogates["static"].trainable(),
    ):
        raise RuntimeError("in the middle")
    assert not any("lora" in name for name, _ in diffusion.unet.named_modules())
    assert not any(p.requires_grad for p in diffusion.unet.parameters())


@KINDS
def test_surrogates_start_at_the_checkpoint_and_change_apart(
    diffusion: DiffusionModel, adaptation: Literal["lora", "full"]
) -> None:
    rows = noisy_rows()
    pretrained = diffusion.predict(*rows).detach()
    with (
        torch.no_grad(),
        open_surrogates(diffusion, settings_of(adaptation), NAMES, seed=0) as surrogates,
    ):
        for name in NAMES:
            torch.testing.assert_close(surrogates[name].predict(*rows), pretrained)
        change(surrogates["dynamic"])
        moved = surrogates["dynamic"].predict(*rows)
        assert (moved - pretrained).abs().max() > 1e-3
        for name in ("static", "third"):
            torch.testing.assert_close(surrogates[name].predict(*rows), pretrained)
        torch.testing.assert_close(surrogates["dynamic"].predict(*rows), moved, rtol=0, atol=0)
        surrogates["dynamic"].reset()
        torch.testing.assert_close(surrogates["dynamic"].predict(*rows), pretrained)


@KINDS
def test_switching_surrogates_leaves_everything_frozen(
    diffusion: DiffusionModel, adaptation: Literal["lora", "full"]
) -> None:
    with open_surrogates(diffusion, settings_of(adaptation), NAMES, seed=0) as surrogates:
        for name in (*NAMES, "static"):
            surrogates[name].predict(*noisy_rows())
            assert not requires_grad(diffusion, surrogates)


@KINDS
def test_only_the_trainable_surrogate_requires_gradients_and_only_meanwhile(
    diffusion: DiffusionModel, adaptation: Literal["lora", "full"]
) -> None:
    with open_surrogates(diffusion, settings_of(adaptation), NAMES, seed=0) as surrogates:
        with surrogates["dynamic"].trainable() as weights:
            prediction = surrogates["dynamic"].predict(*noisy_rows())
            gradients = torch.autograd.grad(prediction.square().sum(), weights)
            assert any(gradient.abs().max() > 0 for gradient in gradients)
            assert not any(weight.requires_grad for weight in surrogates["static"].weights())
        assert not requires_grad(diffusion, surrogates)
        assert all(weight.dtype == torch.float32 for weight in weights)


def test_adapters_start_from_the_seed_and_leave_the_global_generator_alone(
    diffusion: DiffusionModel,
) -> None:
    def first_weights(seed: int) -> list[torch.Tensor]:
        with open_surrogates(diffusion, settings_of("lora"), NAMES, seed) as surrogates:
            return [weight.clone() for weight in surrogates["static"].weights()]

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, again, other = first_weights(7), first_weights(7), first_weights(8)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
