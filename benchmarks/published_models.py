"""Published models as their configurations describe them, written out, with random weights.

Parts are made on whatever device is current; nothing is downloaded. What the weights would show is
unknown here; sizes, types and costs are those of the published ones.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_STABLE_DIFFUSION_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
_SIXTEEN: dict[str, Any] = {
    **_STABLE_DIFFUSION_VAE,
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def sd15_vae() -> AutoencoderKL:
    """Of Stable Diffusion 1.5."""
    return AutoencoderKL(**_STABLE_DIFFUSION_VAE, sample_size=512, scaling_factor=0.18215)


def sd15_unet() -> UNet2DConditionModel:
    """Of Stable Diffusion 1.5: 860 M parameters."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def sd15_text_encoder() -> CLIPTextModel:
    """CLIP ViT-L/14's: 123 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            projection_dim=768,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


@dataclass(frozen=True)
class Published:
    """The autoencoder of a published model, and the side at which people customise it."""

    title: str
    build: Callable[[], Any]
    resolution: int


AUTOENCODERS = {
    "sd15": Published("Stable Diffusion 1.5", sd15_vae, 512),
    "sdxl": Published(
        "Stable Diffusion XL",
        lambda: AutoencoderKL(**_STABLE_DIFFUSION_VAE, sample_size=1024, scaling_factor=0.13025),
        1024,
    ),
    "sd3": Published(
        "Stable Diffusion 3",
        lambda: AutoencoderKL(**_SIXTEEN, scaling_factor=1.5305, shift_factor=0.0609),
        1024,
    ),
    "flux1": Published(
        "FLUX.1",
        lambda: AutoencoderKL(**_SIXTEEN, scaling_factor=0.3611, shift_factor=0.1159),
        1024,
    ),
    "flux2": Published("FLUX.2", AutoencoderKLFlux2, 1024),
    "qwen": Published("Qwen-Image", AutoencoderKLQwenImage, 1024),
}


def frozen(module: Any) -> Any:
    """As loaders leave a part: in evaluation mode, without gradients of its own."""
    return module.eval().requires_grad_(False)


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of single letters, with the length that Stable Diffusion reads."""
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
