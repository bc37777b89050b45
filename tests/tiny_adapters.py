"""Adapters that read faces at tiny size, in the names of the published files."""

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

HEAD = 64
"""Width of a resampler's head, which diffusers takes for granted."""


class _Draws:
    """Seeded weights by name."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: dict[str, Tensor] = {}

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = False) -> None:
        drawn = torch.randn(outputs, inputs, generator=self.generator)
        self.state[f"{name}.weight"] = drawn / inputs**0.5
        if bias:
            self.state[f"{name}.bias"] = torch.zeros(outputs)

    def norm(self, name: str, width: int) -> None:
        self.state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def write_adapter(
    path: Path,
    unet: UNet2DConditionModel,
    id_dim: int,
    clip_dim: int | None = None,
    with_lora: bool = False,
) -> Path:
    """Writes FaceID for ``unet``, or FaceID-Plus where ``clip_dim`` is given; returns ``path``."""
    draws, width = _Draws(0), int(unet.config.cross_attention_dim)
    draws.linear("image_proj.proj.0", id_dim, 2 * id_dim, bias=True)
    draws.linear("image_proj.proj.2", 2 * id_dim, 4 * width, bias=True)
    draws.norm("image_proj.norm", width)
    if clip_dim is not None:
        _resampler(draws, "image_proj.perceiver_resampler", width, clip_dim)
    _attention(draws, unet, width, with_lora)
    save_file(draws.state, path)
    return path


def write_instantid(path: Path, unet: UNet2DConditionModel, id_dim: int) -> Path:
    """Writes InstantID's adapter for ``unet``; returns ``path``."""
    draws, width = _Draws(0), int(unet.config.cross_attention_dim)
    draws.state["image_proj.latents"] = torch.randn(1, 16, width, generator=draws.generator)
    _resampler(draws, "image_proj", width, id_dim)
    _attention(draws, unet, width, with_lora=False)
    save_file(draws.state, path)
    return path


def write_identity_net(folder: Path, unet: UNet2DConditionModel) -> Path:
    """Writes InstantID's ControlNet for ``unet``, trained in so far as it changes something."""
    net = ControlNetModel.from_unet(unet)
    generator = torch.Generator().manual_seed(0)
    zeros = [*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()]
    zeros += list(net.controlnet_cond_embedding.conv_out.parameters())
    with torch.no_grad():
        for weight in zeros:
            weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
    net.save_pretrained(folder)
    return folder


def _attention(draws: _Draws, unet: UNet2DConditionModel, width: int, with_lora: bool) -> None:
    modules = dict(unet.named_modules())
    for index, name in enumerate(unet.attn_processors):
        attention = modules[name.removesuffix(".processor")]
        hidden = attention.to_q.in_features
        if name.endswith("attn2.processor"):
            for layer in ("to_k_ip", "to_v_ip"):
                draws.linear(f"ip_adapter.{index}.{layer}", width, hidden)
        if with_lora:
            for layer in ("to_q", "to_k", "to_v", "to_out"):
                module = attention.to_out[0] if layer == "to_out" else getattr(attention, layer)
                draws.linear(f"ip_adapter.{index}.{layer}_lora.down", module.in_features, 2)
                draws.linear(f"ip_adapter.{index}.{layer}_lora.up", 2, module.out_features)


def _resampler(draws: _Draws, name: str, width: int, clip_dim: int) -> None:
    draws.linear(f"{name}.proj_in", clip_dim, width, bias=True)
    draws.linear(f"{name}.proj_out", width, width, bias=True)
    draws.norm(f"{name}.norm_out", width)
    for layer in range(4):
        attention, feed_forward = f"{name}.layers.{layer}.0", f"{name}.layers.{layer}.1"
        draws.norm(f"{attention}.norm1", width)
        draws.norm(f"{attention}.norm2", width)
        draws.linear(f"{attention}.to_q", width, HEAD)
        draws.linear(f"{attention}.to_kv", width, 2 * HEAD)
        draws.linear(f"{attention}.to_out", HEAD, width)
        draws.norm(f"{feed_forward}.0", width)
        draws.linear(f"{feed_forward}.1", width, 4 * width)
        draws.linear(f"{feed_forward}.3", 4 * width, width)
