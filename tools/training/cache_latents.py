"""Freezes the trained autoencoder and encodes every training portrait.

``python -m tools.training.cache_latents --work ../work`` folds the latents' mean and scale into the
autoencoder (written to ``vae/``) and writes ``latents.npz``: every crop as a "photo", mirrored
at random or both ways, and a share of them as another template says.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from tools.training.builds import BUILDS, BuildName
from tools.training.captions import TEMPLATES
from tools.training.face_data import is_held_out, to_images
from tools.training.train_autoencoder import build_autoencoder
from tools.training.training_stage import load_averaged

SCALING_FACTOR = 0.18215


@torch.no_grad()
def fold_latent_scale(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Rescales latents inside the 1x1 convolutions beside them, channel by channel.

    Afterwards ``SCALING_FACTOR * posterior.mean`` has zero mean and unit variance, as latents
    of Stable Diffusion have, and decoding gives the same images as before.

    Args:
        vae: Changed in place.
        mean: Mean of each latent channel, (channels,).
        deviation: Standard deviation of each latent channel, (channels,).
    """
    scale = 1 / (deviation * SCALING_FACTOR)
    channels = len(mean)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:channels] *= scale.view(-1, 1, 1, 1)
    bias[:channels] = (bias[:channels] - mean) * scale
    bias[channels:] += 2 * scale.log()
    weight, bias = vae.post_quant_conv.weight, vae.post_quant_conv.bias
    bias += (weight.flatten(1) * mean).sum(dim=1)
    weight /= scale.view(1, -1, 1, 1)


def shown_as(images: NDArray[np.uint8], template: str) -> NDArray[np.uint8]:
    """Returns images as a caption's template promises them (see ``captions.TEMPLATES``)."""
    if template == "photo":
        return images
    side = images.shape[1]
    changed = np.empty_like(images)
    for index, image in enumerate(images):
        if template == "dslr portrait":
            blurred = cv2.GaussianBlur(image, (0, 0), 1.2)
            changed[index] = cv2.addWeighted(image, 1.8, blurred, -0.8, 0)
        elif template == "picture":
            small = cv2.resize(image, (side * 3 // 5,) * 2, interpolation=cv2.INTER_AREA)
            changed[index] = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
        elif template == "studio portrait":
            margin = side * (1 - 1 / 1.15) / 2
            matrix = np.array([[1.15, 0, -1.15 * margin], [0, 1.15, -1.15 * margin * 1.1]])
            changed[index] = cv2.warpAffine(
                image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE
            )
        else:
            raise ValueError(f"unknown template {template!r}")
    return changed


@torch.no_grad()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Returns posterior means of uint8 images, unscaled, fp32 on the CPU."""
    parts = []
    for start in range(0, len(images), 32):
        pixel_values = to_images(images[start : start + 32]).to(device) * 2 - 1
        parts.append(vae.encode(pixel_values).latent_dist.mean.cpu())
    return torch.cat(parts)


def training_rows(people: NDArray[np.str_]) -> NDArray[np.int64]:
    """Returns the rows of portraits whose identity may be trained on."""
    return np.flatnonzero([not is_held_out(str(identity)) for identity in people])


def load_trained_autoencoder(path: Path, build: BuildName) -> AutoencoderKL:
    """Returns the averaged weights of the autoencoder's checkpoint, frozen."""
    vae = build_autoencoder(BUILDS[build])
    load_averaged(vae, path, build)
    return vae.eval().requires_grad_(False)


def _mirror(images: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def main() -> None:
    """Runs the stage from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", choices=sorted(BUILDS), default="faces-128", help="which model")
    parser.add_argument("--both-mirrors", action="store_true", help="more varied, twice the time")
    parser.add_argument("--template-share", type=float, default=0.25, help="shown differently too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)

    table = np.load(arguments.work / "portraits.npz")
    keep = training_rows(table["identity"])
    images = table["images"][keep]
    vae = load_trained_autoencoder(arguments.work / "autoencoder.pt", arguments.build).to(device)

    random = np.random.default_rng(0)
    mirrored = random.random(len(keep)) < 0.5
    plain = encode(vae, _mirror(images, mirrored), device)
    mean, deviation = plain.mean(dim=(0, 2, 3)), plain.std(dim=(0, 2, 3))
    print(f"mean {mean.numpy().round(2)} deviation {deviation.numpy().round(2)}", flush=True)
    fold_latent_scale(vae, mean.to(device), deviation.to(device))
    vae.save_pretrained(arguments.work / "vae")
    # The folded encoder would give the same again.
    folded = (plain - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    latents, rows, templates = [folded.half().numpy()], [keep], [np.zeros(len(keep), int)]

    parts = [(0, np.arange(len(keep)))] if arguments.both_mirrors else []
    other = random.integers(1, len(TEMPLATES), len(keep))
    shown_otherwise = random.random(len(keep)) < arguments.template_share
    for index in range(1, len(TEMPLATES)):
        parts.append((index, np.flatnonzero((other == index) & shown_otherwise)))
    for index, chosen in parts:
        shown = shown_as(images[chosen], TEMPLATES[index])
        view = _mirror(shown, ~mirrored[chosen])
        latents.append((encode(vae, view, device) * SCALING_FACTOR).half().numpy())
        rows.append(keep[chosen])
        templates.append(np.full(len(chosen), index))
        print(f"{TEMPLATES[index]}: {sum(map(len, latents))} latents", flush=True)
    stacked = np.concatenate(latents)
    print(
        f"scaled latents: mean {stacked.mean(dtype=float):.3f} std {stacked.std(dtype=float):.3f}"
    )
    np.savez(
        arguments.work / "latents.npz",
        latents=stacked,
        row=np.concatenate(rows),
        template=np.concatenate(templates),
    )


if __name__ == "__main__":
    main()
