"""What published autoencoders and UNets cost a photo and a step: counted, without weights or a GPU.

``python -m benchmarks.model_cost`` lets the real modules run on the stand-in accelerator and writes
``results/model_cost.json``: floating-point operations of one photo through each autoencoder and
back, and the bytes that are alive at most, per precision; and one pair of Stable Diffusion 1.5's
UNet. ``make results`` makes tables of it, with seconds derived from GPUs' published peaks.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.published_models import AUTOENCODERS
from benchmarks.stand_in import StandIn, device
from benchmarks.stand_in_models import autoencoder, one_thread, stable_diffusion
from dladiff.accelerator import Precision

RESULTS = Path(__file__).parents[1] / "results" / "model_cost.json"
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def of_autoencoder(stand_in: StandIn, name: str, precision: Precision) -> dict[str, Any]:
    """One photo through an autoencoder and back: TFLOP by part, GiB beside the weights."""
    began = stand_in.live_bytes
    model = autoencoder(name, precision)
    weights = stand_in.live_bytes - began
    side = model.resolution
    images = torch.zeros(1, 3, side, side, device=device(), requires_grad=True)
    before, flops = stand_in.live_bytes, stand_in.flops
    with stand_in.peak() as peak:
        latents = model.encode(images)
        encoded, after_encoding = stand_in.flops - flops, stand_in.live_bytes - before
        shown = model.decode(latents)
        decoded, saved = stand_in.flops - flops - encoded, stand_in.live_bytes - before
        torch.autograd.grad(shown.sum(), images)
    return {
        "model": name,
        "precision": precision,
        "resolution": side,
        "encode_tflop": _tera(encoded),
        "decode_tflop": _tera(decoded),
        "back_tflop": _tera(stand_in.flops - flops - encoded - decoded),
        "saved_encoder_gib": _gib(after_encoding),
        "saved_gib": _gib(saved),
        "peak_gib": _gib(peak[0] - before),
        "weights_gib": _gib(weights),
    }


def of_unet(stand_in: StandIn, precision: Precision) -> dict[str, Any]:
    """One row through Stable Diffusion 1.5's UNet and back to its latents."""
    model = stable_diffusion(precision)
    latents = torch.zeros(1, 4, 64, 64, device=device(), requires_grad=True)
    timesteps = torch.zeros(1, dtype=torch.long, device=device())
    before, flops = stand_in.live_bytes, stand_in.flops
    with stand_in.peak() as peak:
        prediction = model.predict(latents, timesteps)
        forward = stand_in.flops - flops
        torch.autograd.grad(prediction.sum(), latents)
    return {
        "model": "sd15-unet",
        "precision": precision,
        "resolution": 512,
        "forward_tflop": _tera(forward),
        "back_tflop": _tera(stand_in.flops - flops - forward),
        "peak_gib": _gib(peak[0] - before),
    }


def _tera(flops: int) -> float:
    return round(flops / 1e12, 3)


def _gib(num_bytes: int) -> float:
    return round(num_bytes / 2**30, 2)


def main() -> None:
    """Counts all, or what is named, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=[*AUTOENCODERS, "sd15-unet"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.model or [*AUTOENCODERS, "sd15-unet"]:
        for precision in PRECISIONS:
            began = time.process_time()
            with one_thread() as stand_in:
                if name == "sd15-unet":
                    rows.append(of_unet(stand_in, precision))
                else:
                    rows.append(of_autoencoder(stand_in, name, precision))
            print(json.dumps(rows[-1]), round(time.process_time() - began), "s", flush=True)
    found = {
        "measured": "counted on a stand-in for an accelerator: the classes of diffusers with the "
        "published configurations, no weights, one photo",
        "command": "python -m benchmarks.model_cost",
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
