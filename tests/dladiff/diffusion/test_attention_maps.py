"""Attention maps: recorded as they are, only where read, and the UNet left early."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from dladiff.diffusion.attention_maps import AttentionReader, attention_distance, attention_layers
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import add_noise
from tests.layer1_scenes import in_float64


@pytest.fixture
def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([30, 800])


def reader_of(diffusion: DiffusionModel, drop_bos: bool = True) -> AttentionReader:
    return AttentionReader(diffusion.unet, attention_layers(diffusion.unet, 16), drop_bos)


def test_layers_of_a_stable_diffusion_unet_are_those_at_16_and_8_cells() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    layers = attention_layers(unet, 64)
    blocks = list(dict.fromkeys(layer.split(".attentions")[0] for layer in layers))
    assert blocks == ["down_blocks.2", "mid_block", "up_blocks.1"]
    assert len(layers) == 2 * (2 + 1 + 3)
    with_largest = attention_layers(unet, 64, include_largest=True)
    assert {layer.split(".attentions")[0] for layer in with_largest} == {
        "down_blocks.1",
        "down_blocks.2",
        "mid_block",
        "up_blocks.1",
        "up_blocks.2",
    }


def test_a_unet_without_small_attention_is_refused(diffusion: DiffusionModel) -> None:
    with pytest.raises(ValueError, match="no attention layer"):
        attention_layers(diffusion.unet, 1)


def test_maps_agree_with_probabilities_computed_from_the_projections(
    diffusion: DiffusionModel, noisy: tuple[torch.Tensor, torch.Tensor]
) -> None:
    outputs: dict[str, torch.Tensor] = {}
    reader = reader_of(diffusion, drop_bos=False)
    hooks = []
    for name, module in reader.modules.items():
        for part in ("to_q", "to_k"):

            def keep(_: Any, __: Any, out: torch.Tensor, key: str = f"{name}.{part}") -> None:
                outputs[key] = out

            hooks.append(getattr(module, part).register_forward_hook(keep))
    with torch.no_grad():
        maps, _ = reader.read(diffusion.predict, *noisy)
    for hook in hooks:
        hook.remove()
    for name, found in maps.items():
        query, key = (
            outputs[f"{name}.{part}"].view(2, -1, 2, outputs[f"{name}.{part}"].shape[-1] // 2)
            for part in ("to_q", "to_k")
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
        torch.testing.assert_close(found, scores.softmax(-1).mean(1))
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_without_the_bos_column_the_rest_is_renormalised_and_self_attention_kept(
    diffusion: DiffusionModel, noisy: tuple[torch.Tensor, torch.Tensor]
) -> None:
    whole, _ = reader_of(diffusion, drop_bos=False).read(diffusion.predict, *noisy)
    dropped, _ = reader_of(diffusion, drop_bos=True).read(diffusion.predict, *noisy)
    for name, found in dropped.items():
        expected = whole[name]
        if name.endswith("attn2"):
            expected = expected[..., 1:] / expected[..., 1:].sum(-1, keepdim=True)
        torch.testing.assert_close(found, expected)


def test_reading_maps_does_not_change_the_prediction(
    diffusion: DiffusionModel, noisy: tuple[torch.Tensor, torch.Tensor]
) -> None:
    _, prediction = reader_of(diffusion).read(diffusion.predict, *noisy, stop_after_last_map=False)
    assert prediction is not None
    torch.testing.assert_close(prediction, diffusion.predict(*noisy), rtol=1e-4, atol=1e-5)


def test_the_unet_is_left_after_the_last_map_and_only_read_layers_make_maps(
    diffusion: DiffusionModel, noisy: tuple[torch.Tensor, torch.Tensor]
) -> None:
    reached: list[str] = []
    hooks = [
        diffusion.unet.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: reached.append(name)
        )
        for name in ("up_blocks.1", "up_blocks.2", "conv_out")
    ]
    maps, prediction = reader_of(diffusion).read(diffusion.predict, *noisy)
    for hook in hooks:
        hook.remove()
    assert reached == ["up_blocks.1"]
    assert prediction is None
    assert tuple(maps) == attention_layers(diffusion.unet, 16)


def test_processors_are_back_afterwards_even_after_a_failure(
    diffusion: DiffusionModel, noisy: tuple[torch.Tensor, torch.Tensor]
) -> None:
    reader_of(diffusion).read(diffusion.predict, *noisy)

    def fail(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        reader_of(diffusion).read(fail, *noisy)
    processors = diffusion.unet.attn_processors.values()
    assert all(type(processor) is AttnProcessor2_0 for processor in processors)


def test_distance_is_relative_and_summed_over_layers() -> None:
    static = {"a": torch.tensor([[[3.0, 4.0]]]), "b": torch.tensor([[[1.0, 0.0]]])}
    dynamic = {"a": torch.tensor([[[3.0, 9.0]]]), "b": torch.tensor([[[0.0, 0.0]]])}
    torch.testing.assert_close(attention_distance(static, dynamic), torch.tensor([1.0 + 1.0]))
    assert attention_distance(static, static).tolist() == [0.0]
    with pytest.raises(ValueError, match="different layers"):
        attention_distance(static, {"a": static["a"]})


def test_gradient_of_the_distance_agrees_with_finite_differences(
    diffusion: DiffusionModel,
) -> None:
    double = in_float64(diffusion)
    reader = reader_of(double)
    generator = torch.Generator().manual_seed(3)
    clean, noise, direction, offset = (
        torch.randn(4, 2, 4, 16, 16, generator=generator).double().unbind(0)
    )
    timesteps = torch.tensor([5, 700])

    def maps(latents: torch.Tensor) -> dict[str, torch.Tensor]:
        noisy = add_noise(latents, timesteps, noise, double)
        return reader.read(double.predict, noisy, timesteps)[0]

    def loss(latents: torch.Tensor) -> torch.Tensor:
        return attention_distance(maps(clean), maps(latents)).sum()

    point = clean + 0.1 * offset
    leaf = point.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = 1e-5
    difference = (loss(point + step * direction) - loss(point - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-12)
