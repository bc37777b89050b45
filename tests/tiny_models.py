"""The real diffusers and transformers classes at tiny size: a seeded Stable-Diffusion checkpoint.

``write_checkpoint`` makes a folder in diffusers format, with random weights, without downloads.
Images are 32 px, latents 16 px (one halving), attention at 16, 8 and 4 cells a side.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

NUM_TOKENS = 24


def tiny_unet(seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    """A UNet of Stable Diffusion's structure with three levels (0.6 M parameters)."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**(config | changes)).eval()


def tiny_vae(seed: int = 0, num_halvings: int = 1) -> AutoencoderKL:
    """An AutoencoderKL that halves the side once, or as often as said."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * (num_halvings + 1),
        up_block_types=("UpDecoderBlock2D",) * (num_halvings + 1),
        block_out_channels=(*(8,) * num_halvings, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=4.0,
    ).eval()


def tiny_taesd(seed: int = 0) -> AutoencoderTiny:
    """An AutoencoderTiny that halves the side once."""
    torch.manual_seed(seed)
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()


def tiny_text_encoder(vocab_size: int, seed: int = 0) -> CLIPTextModel:
    torch.manual_seed(seed)
    return CLIPTextModel(_tiny_text_config(vocab_size)).eval()


def _tiny_text_config(vocab_size: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=1,
    )


def write_clip_vision(folder: Path, hidden_size: int = 32, seed: int = 0) -> Path:
    """A CLIP vision tower of 224 px in 16 patches, in transformers format; returns the folder."""
    torch.manual_seed(seed)
    tower = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=224,
            patch_size=56,
            projection_dim=24,
        )
    )
    tower.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tokenizer(folder: Path, max_length: int = NUM_TOKENS) -> CLIPTokenizer:
    """A CLIP tokenizer that knows letters only, so "sks" is several tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{c}</w>" for c in letters]]
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=max_length
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_checkpoint(
    folder: Path,
    *,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    vae: Literal["kl", "tiny"] = "kl",
    seed: int = 0,
) -> Path:
    """Writes a complete checkpoint in diffusers format and returns its folder."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    tiny_unet(seed).save_pretrained(folder / "unet")
    (tiny_vae(seed) if vae == "kl" else tiny_taesd(seed)).save_pretrained(folder / "vae")
    tiny_text_encoder(len(tokenizer), seed).save_pretrained(folder / "text_encoder")
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )
    scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL" if vae == "kl" else "AutoencoderTiny"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_xl_checkpoint(folder: Path) -> Path:
    """Stable Diffusion XL's structure, 128 px in latents of 16; returns its folder."""
    write_checkpoint(folder)
    tokenizer = write_tokenizer(folder / "tokenizer_2")
    unet = tiny_unet(
        cross_attention_dim=64,  # of both text encoders
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    unet.save_pretrained(folder / "unet")
    tiny_vae(num_halvings=3).save_pretrained(folder / "vae")
    torch.manual_seed(1)
    second = CLIPTextModelWithProjection(_tiny_text_config(len(tokenizer)))
    second.save_pretrained(folder / "text_encoder_2")
    return folder
