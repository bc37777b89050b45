"""How each class of autoencoder is read: what a pipeline of its family feeds its network with.

Every family brings its latents to about unit variance, each in its own way. Knows the classes of
diffusers by name, so that none is imported here; knows nothing of sides of images or of precision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.errors import ModelError
from dladiff.image_values import Images
from dladiff.weight_files import AUTOENCODER_CLASSES, unsupported_autoencoder

PixelValues = Images
"""In [-1, 1]."""
_Raw = Float[Tensor, "batch channels latent_height latent_width"]
"""Latents as the network itself has them."""
_Statistic = float | Float[Tensor, "#channels 1 1"]


@dataclass(frozen=True)
class LatentSpace:
    """E and D of one class of autoencoder, and the scale that its networks' latents have."""

    read: Callable[[Any, PixelValues], _Raw]
    """The posterior's mean, never a sample."""
    show: Callable[[Any, _Raw], PixelValues]
    statistics: Callable[[Any, _Raw], tuple[_Statistic, _Statistic]]
    """Shift and scale: latents are ``(raw - shift) * scale``."""
    scale_factor: Callable[[Any], int]
    """Pixels of an image per cell of its latents, along a side."""
    resolution: int | None = None
    """Where no configuration says one: as its pipeline's images are; None: as somebody must say."""

    def encode(self, vae: Any, pixel_values: PixelValues) -> _Raw:
        """Scaled latents of images in [-1, 1], in their dtype."""
        raw = self.read(vae, pixel_values.to(_dtype(vae))).to(pixel_values.dtype)
        shift, scale = self.statistics(vae, raw)
        return (raw - shift) * scale

    def decode(self, vae: Any, latents: _Raw) -> PixelValues:
        """What scaled latents show, about within [-1, 1], in the network's dtype."""
        shift, scale = self.statistics(vae, latents)
        return self.show(vae, (latents / scale + shift).to(_dtype(vae)))


def latent_space(vae: Any) -> LatentSpace:
    """The way of an autoencoder's class.

    Raises:
        ModelError: If its class is none of those supported.
    """
    for base in type(vae).__mro__:
        if base.__name__ in _SPACES:
            return _SPACES[base.__name__]
    raise ModelError(unsupported_autoencoder(type(vae).__name__))


def _dtype(vae: Any) -> torch.dtype:
    dtype: torch.dtype = next(vae.parameters()).dtype
    return dtype


def _read(vae: Any, pixel_values: PixelValues) -> _Raw:
    mean: Tensor = vae.encode(pixel_values).latent_dist.mean
    return mean


def _show(vae: Any, raw: _Raw) -> PixelValues:
    decoded: Tensor = vae.decode(raw).sample
    return decoded


def _halvings(vae: Any) -> int:
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _configured(vae: Any, like: _Raw) -> tuple[_Statistic, _Statistic]:
    """One number each, or one per channel where a configuration has them (Playground 2.5)."""
    config = vae.config
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        return config.get("shift_factor") or 0.0, config.scaling_factor
    mean, deviation = _column(config.latents_mean, like), _column(config.latents_std, like)
    return mean, config.scaling_factor / deviation


def _column(values: Sequence[float], like: Tensor) -> Float[Tensor, "channels 1 1"]:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _read_tiny(vae: Any, pixel_values: PixelValues) -> _Raw:
    """It has no posterior; its output is the latent itself."""
    encoded: Tensor = vae.encode(pixel_values).latents
    return encoded


def _read_patches(vae: Any, pixel_values: PixelValues) -> _Raw:
    """FLUX.2's transformer sees patches of 2 x 2 cells, their channels side by side."""
    return functional.pixel_unshuffle(_read(vae, pixel_values), vae.config.patch_size[0])


def _show_patches(vae: Any, raw: _Raw) -> PixelValues:
    return _show(vae, functional.pixel_shuffle(raw, vae.config.patch_size[0]))


def _of_batch_norm(vae: Any, like: _Raw) -> tuple[_Statistic, _Statistic]:
    """Mean and spread of the patches, as counted in training."""
    scale = (vae.bn.running_var.float() + vae.config.batch_norm_eps).rsqrt()
    return vae.bn.running_mean.to(like)[:, None, None], scale.to(like)[:, None, None]


def _read_frame(vae: Any, pixel_values: PixelValues) -> _Raw:
    """An autoencoder of videos: a photo is one of a single frame."""
    mean: Tensor = vae.encode(pixel_values[:, :, None]).latent_dist.mean
    return mean[:, :, 0]


def _show_frame(vae: Any, raw: _Raw) -> PixelValues:
    decoded: Tensor = vae.decode(raw[:, :, None]).sample
    return decoded[:, :, 0]


def _of_channels(vae: Any, like: _Raw) -> tuple[_Statistic, _Statistic]:
    return _column(vae.config.latents_mean, like), 1 / _column(vae.config.latents_std, like)


_SPACES = {
    "AutoencoderKL": LatentSpace(_read, _show, _configured, _halvings),
    "AutoencoderTiny": LatentSpace(
        _read_tiny,
        _show,
        _configured,
        lambda vae: int(2 ** (len(vae.config.encoder_block_out_channels) - 1)),
    ),
    "AutoencoderKLFlux2": LatentSpace(
        _read_patches,
        _show_patches,
        _of_batch_norm,
        lambda vae: _halvings(vae) * int(vae.config.patch_size[0]),
    ),
    "AutoencoderKLQwenImage": LatentSpace(
        _read_frame,
        _show_frame,
        _of_channels,
        lambda vae: int(2 ** len(vae.config.temperal_downsample)),
        resolution=1024,
    ),
}
assert set(_SPACES) == set(AUTOENCODER_CLASSES)
