"""A step of layer 1 against a plain textbook loop: CPU seconds and memory per image gradient.

``python -m benchmarks.step_cost`` builds a checkpoint of Stable Diffusion's structure (UNet of
64/128/256/256 channels, 128 px, random weights) and runs both loops, each in a process of its
own.

The textbook loop is what research code does: weights collect gradients, the text encoder runs at
each step, one timestep per pass of the VAE, every attention map is kept and both UNets run to
their end.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.published_models import write_tokenizer
from dladiff.ascent_loop import ascend
from dladiff.config import ModelSettings, preset_settings
from dladiff.diffusion.attention_maps import attention_distance
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.diffusion.denoising_loss import add_noise, draw_noise, draw_timesteps, squared_error
from dladiff.methods.paper.adft import open_finetuning_defense
from dladiff.photo_at_work import PhotoAtWork

NUM_PHOTOS = 4
TIMESTEPS_PER_STEP = 4
K1, K2 = 2, 4
"""Signed steps of an epoch in preset ``balanced``."""
LIMITS = {"seconds": 0.55, "memory": 0.75}


def write_checkpoint(folder: Path) -> Path:
    """A checkpoint of Stable Diffusion's structure with random weights."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder / "tokenizer")
    UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 256, 256),
        cross_attention_dim=768,
        attention_head_dim=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        latent_channels=4,
        sample_size=128,
    ).save_pretrained(folder / "vae")
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        num_attention_heads=12,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModel(text_config).save_pretrained(folder / "text_encoder")
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text("{}")
    return folder


def random_photos(count: int) -> list[PhotoAtWork]:
    """Photos of 160 x 160 pixels without faces."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, 160, 160, generator=generator) for _ in range(count)]
    return [PhotoAtWork.of_images(str(number), image, []) for number, image in enumerate(images)]


def lean_epochs(diffusion: DiffusionModel, _: UNet2DConditionModel, num_epochs: int) -> int:
    """Our loop: K1 and K2 signed steps per epoch; returns the number of (photo, t) gradients."""
    method = preset_settings("balanced").changed(
        f"surrogates.timesteps_per_step={TIMESTEPS_PER_STEP}",
        "surrogates.step0_steps=0",
        "handling=false",
        f"micro_batch={NUM_PHOTOS}",
    )
    photos = random_photos(NUM_PHOTOS)
    with open_finetuning_defense(photos, [], diffusion, method) as defense:
        for _ in range(num_epochs):
            for _ in range(K1):
                ascend(photos, [defense.up(defense.losses.attention_gradient)], "layer 1")
            for _ in range(K2):
                ascend(photos, [defense.up(defense.losses.denoising_gradient)], "layer 1")
    return num_epochs * (K1 + K2) * NUM_PHOTOS * TIMESTEPS_PER_STEP


class KeepMaps(AttnProcessor):  # type: ignore[misc]  # diffusers is untyped
    """diffusers' plain attention, which materialises its maps, keeping every one of them."""

    def __init__(self, maps: dict[str, torch.Tensor], name: str) -> None:
        self.maps, self.name = maps, name

    def __call__(self, attn: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        original = attn.get_attention_scores

        def keep(*tensors: Any) -> torch.Tensor:
            probs: torch.Tensor = original(*tensors)
            by_head = probs.reshape(-1, attn.heads, *probs.shape[1:])
            self.maps[self.name] = by_head.mean(dim=1)
            return probs

        attn.get_attention_scores = keep
        try:
            output: torch.Tensor = super().__call__(attn, *arguments, **options)
            return output
        finally:
            del attn.get_attention_scores


def textbook_epochs(
    diffusion: DiffusionModel, static: UNet2DConditionModel, num_epochs: int
) -> int:
    """The plain loop at the same mix of steps; returns the number of (photo, t) gradients."""
    for module in (static, diffusion.unet, diffusion.vae, diffusion.text_encoder):
        module.requires_grad_(True)
    static_maps: dict[str, torch.Tensor] = {}
    dynamic_maps: dict[str, torch.Tensor] = {}
    for unet, maps in ((static, static_maps), (diffusion.unet, dynamic_maps)):
        unet.set_attn_processor({name: KeepMaps(maps, name) for name in unet.attn_processors})
    clean = torch.nn.functional.interpolate(
        torch.cat([photo.clean for photo in random_photos(NUM_PHOTOS)]), size=(128, 128)
    )
    delta = torch.zeros_like(clean)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_epochs):
        for step in range(K1 + K2):
            delta = delta.detach().requires_grad_(True)
            tokens = diffusion.tokenizer(
                "a photo of sks person", padding="max_length", return_tensors="pt"
            )
            embeds = diffusion.text_encoder(tokens.input_ids)[0].expand(NUM_PHOTOS, -1, -1)
            latents = diffusion.encode(clean + delta)
            timesteps = draw_timesteps(NUM_PHOTOS, generator, "uniform")
            noise = draw_noise(NUM_PHOTOS, diffusion, generator)
            noisy = add_noise(latents, timesteps, noise, diffusion)
            prediction = diffusion.unet(noisy, timesteps, embeds).sample
            if step < K1:
                with torch.no_grad():
                    noisy = add_noise(diffusion.encode(clean), timesteps, noise, diffusion)
                    static(noisy, timesteps, embeds)
                loss = attention_distance(static_maps, dynamic_maps).mean()
            else:
                loss = squared_error(prediction, noise).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            assert delta.grad is not None
            delta = (delta + delta.grad.sign() * 0.0025).clamp(-7 / 255, 7 / 255)
    return num_epochs * (K1 + K2) * NUM_PHOTOS


def run_one(loop: str, folder: Path, num_epochs: int) -> dict[str, float]:
    """Runs one loop in this process: CPU seconds per gradient, memory above the models."""
    torch.set_num_threads(1)
    diffusion = load_diffusion_model(ModelSettings(checkpoint=str(folder)), "cpu")
    epochs = lean_epochs if loop == "lean" else textbook_epochs
    # The textbook loop's second UNet counts as a loaded model, in both loops.
    static = copy.deepcopy(diffusion.unet)
    loaded = _resident_bytes()
    _reset_peak()
    started = time.process_time()
    num_gradients = epochs(diffusion, static, num_epochs)
    seconds = time.process_time() - started
    return {
        "seconds_per_gradient": seconds / num_gradients,
        "memory_mb": (_peak_bytes() - loaded) / 1e6,
        "gradients": num_gradients,
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def in_own_process(loop: str, folder: Path, num_epochs: int) -> dict[str, float]:
    """``run_one`` where nothing else has touched the memory yet."""
    command = [sys.executable, "-m", "benchmarks.step_cost", "--loop", loop]
    command += ["--folder", str(folder), "--epochs", str(num_epochs)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    """Prints one row per loop, the ratios, and whether they keep the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--loop", choices=["lean", "textbook"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        print(json.dumps(run_one(arguments.loop, arguments.folder, arguments.epochs)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_checkpoint(Path(temporary))
        rows = {
            loop: in_own_process(loop, folder, arguments.epochs) for loop in ("textbook", "lean")
        }
    for loop, row in rows.items():
        print(f"{loop:9} {row['seconds_per_gradient']:.4f} CPU s  {row['memory_mb']:.0f} MB")
    ratios = {
        "seconds": rows["lean"]["seconds_per_gradient"] / rows["textbook"]["seconds_per_gradient"],
        "memory": rows["lean"]["memory_mb"] / rows["textbook"]["memory_mb"],
    }
    for name, ratio in ratios.items():
        verdict = "kept" if ratio <= LIMITS[name] else "BROKEN"
        print(f"ratio of {name}: {ratio:.3f}, limit {LIMITS[name]} {verdict}")


if __name__ == "__main__":
    main()
