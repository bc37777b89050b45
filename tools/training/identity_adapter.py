"""An identity adapter inside a UNet, in the layout of IP-Adapter-FaceID files.

The adapter turns one face embedding into four tokens and gives every cross-attention layer a
second pair of key and value projections for them (Ye et al. 2023, arXiv:2308.06721).
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from torch import Tensor, nn

from dladiff.evaluation.attacks.zero_shot import load_adapter

NUM_TOKENS = 4
"""diffusers assumes exactly four tokens for this layout."""

_PROJECTION_NAMES = {
    "proj.0.weight": "ff.net.0.proj.weight",
    "proj.0.bias": "ff.net.0.proj.bias",
    "proj.2.weight": "ff.net.2.weight",
    "proj.2.bias": "ff.net.2.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}


def attach_adapter(unet: UNet2DConditionModel, embedding_width: int = 128) -> None:
    """Adds an untrained adapter to a UNet; keys and values start as copies of the text's."""
    tokens_width = unet.config.cross_attention_dim
    first = nn.Linear(embedding_width, 2 * embedding_width)
    second = nn.Linear(2 * embedding_width, NUM_TOKENS * tokens_width)
    norm = nn.LayerNorm(tokens_width)
    projection = {
        "proj.0.weight": first.weight,
        "proj.0.bias": first.bias,
        "proj.2.weight": second.weight,
        "proj.2.bias": second.bias,
        "norm.weight": norm.weight,
        "norm.bias": norm.bias,
    }
    layers = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            layers[f"{index}.to_k_ip.weight"] = attention.to_k.weight
            layers[f"{index}.to_v_ip.weight"] = attention.to_v.weight
    state = {
        "image_proj": {key: value.detach().clone() for key, value in projection.items()},
        "ip_adapter": {key: value.detach().clone() for key, value in layers.items()},
    }
    load_adapter(unet, state)


def set_adapter_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """Sets how much of the adapter's attention is added; 0 switches it off."""
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            processor.scale = [scale]


def _is_adapter(name: str) -> bool:
    return name.startswith("encoder_hid_proj.") or ".processor." in name


def adapter_state_dict(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Returns the adapter as the flat keys of an IP-Adapter-FaceID safetensors file."""
    inside = unet.encoder_hid_proj.image_projection_layers[0].state_dict()
    state = {f"image_proj.{key}": inside[name] for key, name in _PROJECTION_NAMES.items()}
    for index, processor in enumerate(unet.attn_processors.values()):
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            state[f"ip_adapter.{index}.to_k_ip.weight"] = processor.to_k_ip[0].weight
            state[f"ip_adapter.{index}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    return {key: value.detach().clone().contiguous() for key, value in state.items()}


def without_adapter(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Returns a frozen copy of a UNet as it is without its adapter."""
    config = {k: v for k, v in unet.config.items() if k != "encoder_hid_dim_type"}
    with torch.random.fork_rng():
        plain = UNet2DConditionModel.from_config(config)
    state = {key: value for key, value in unet.state_dict().items() if not _is_adapter(key)}
    plain.load_state_dict(state)
    return plain.to(unet.device).eval().requires_grad_(False)


def adapter_modules(unet: UNet2DConditionModel) -> nn.ModuleDict:
    """Returns the adapter's modules, shared with the UNet, as one module to train or save."""
    processors = [
        processor
        for processor in unet.attn_processors.values()
        if isinstance(processor, IPAdapterAttnProcessor2_0)
    ]
    return nn.ModuleDict(
        {"projection": unet.encoder_hid_proj, "processors": nn.ModuleList(processors)}
    )
