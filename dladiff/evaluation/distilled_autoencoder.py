"""TAEF2, the distilled autoencoder of FLUX.2's latents, which diffusers has no class for.

A judge only: no loss of a protection reads it. Its blocks at 1/8 of the side normalise over the
whole picture, which ``AutoencoderTiny`` does not know.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dladiff.errors import ModelError
from dladiff.image_values import Images

FILES = ("encoder.safetensors", "decoder.safetensors")
SCALE_FACTOR = 8
"""Pixels per cell of the latents, along a side."""
_WIDTH = 64
_LATENT_CHANNELS = 32
_POOL_WIDTH = 256
_LATENT_MAGNITUDE = 3.0

Features = Float[Tensor, "batch channels height width"]


class DistilledAutoencoder(nn.Module):
    """Images in [0, 1] to latents of 32 channels at 1/8 of the side, and back.

    Source: the structure that github.com/madebyollin/taesd publishes with these weights (MIT).
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()
        self.decoder = _decoder()

    def forward(self, images: Images) -> Images:
        """Encodes and decodes once; sides are multiples of 8."""
        images = self.decoder(self.encoder(images))
        return images.clamp(0, 1)


class _Block(nn.Module):
    """Three convolutions beside a shortcut; with ``pool`` a look at the whole picture before."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(_WIDTH), nn.ReLU(), _conv(_WIDTH), nn.ReLU(), _conv(_WIDTH))
        self.pool = _pool() if pool else None

    def forward(self, features: Features) -> Features:
        if self.pool is not None:
            features = features + self.pool(features)
        return torch.relu(self.conv(features) + features)


class _Squash(nn.Module):
    def forward(self, latents: Features) -> Features:
        return torch.tanh(latents / _LATENT_MAGNITUDE) * _LATENT_MAGNITUDE


def load_distilled_autoencoder(folder: Path, device: torch.device | str) -> DistilledAutoencoder:
    """Loads the two files, frozen, in evaluation mode and float32.

    Raises:
        ModelError: If they are damaged or of another structure.
    """
    autoencoder = DistilledAutoencoder()
    for name, part in zip(FILES, (autoencoder.encoder, autoencoder.decoder), strict=True):
        try:
            part.load_state_dict(load_file(folder / name))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ModelError(f"{folder / name}: no weights of TAEF2: {error}") from error
    return autoencoder.eval().requires_grad_(False).to(device)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(_WIDTH, 3), _Block(pool=False)]
    for stage in range(3):
        layers.append(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [_Block(pool=stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH, _LATENT_CHANNELS, 3, padding=1))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_Squash(), _conv(_WIDTH, _LATENT_CHANNELS), nn.ReLU()]
    for stage in range(3):
        layers += [_Block(pool=stage == 0) for _ in range(3)]
        layers.append(nn.Upsample(scale_factor=2))
        layers.append(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False))
    return nn.Sequential(*layers, _Block(pool=False), nn.Conv2d(_WIDTH, 3, 3, padding=1))


def _conv(channels: int, from_channels: int = _WIDTH) -> nn.Conv2d:
    return nn.Conv2d(from_channels, channels, 3, padding=1)


def _pool() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(_WIDTH, _POOL_WIDTH, 1, bias=False),
        nn.GroupNorm(4, _POOL_WIDTH),
        nn.ReLU(),
        nn.Conv2d(_POOL_WIDTH, _WIDTH, 1, bias=False),
    )
