"""What platforms and attackers do to a photo: JPEG, resizing, blur, noise; differentiable.

Knows images and the settings of a draw. Knows nothing of faces, encoders or diffusion models.
Rounding is exact forwards and passed straight through backwards.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.image_values import Crops, Images, levels_to_unit
from dladiff.randomness import keyed_generator

# Annex K of ITU-T T.81, the tables that libjpeg scales by quality.
_LUMA_TABLE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101
72 92 95 98 112 100 103 99
"""
_CHROMA_TABLE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_YCBCR_FROM_RGB = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_RGB_FROM_YCBCR = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]])

NONE_SHARE = 0.30
"""Share of draws without any photometric transform."""
JPEG_AND_HALF_SHARE = 0.25
"""Share of draws with JPEG and a half-size round trip together; the rest are single ones."""
JPEG_QUALITIES = (60, 95)
"""Range on libjpeg's scale."""
BLUR_SIGMAS_PX = (0.3, 1.2)
NOISE_SIGMAS_LEVELS = (0.5, 3.0)
MCU = 16
"""Side in pixels of JPEG's unit at 4:2:0; a crop aligned to it keeps the photo's blocks."""


@dataclass(frozen=True)
class PhotometricTransform:
    """One draw of handling; keeps size and geometry, so it may act on the attacked image only."""

    blur_sigma_px: float | None = None
    noise_sigma_levels: float | None = None
    noise_seed: int = 0
    half_size: bool = False
    """Halve, then (after JPEG, if any) double again: what survives a half-size copy."""
    jpeg_quality: int | None = None

    def apply(self, images: Images) -> Images:
        """Applies the draw; the result is in [0, 1] and differentiable in ``images``."""
        height, width = images.shape[-2:]
        if self.blur_sigma_px is not None:
            images = gaussian_blur(images, self.blur_sigma_px)
        if self.noise_sigma_levels is not None:
            images = add_noise(images, levels_to_unit(self.noise_sigma_levels), self.noise_seed)
        if self.half_size:
            images = resize_antialiased(images, (height + 1) // 2, (width + 1) // 2)
        if self.jpeg_quality is not None:
            images = jpeg(images, self.jpeg_quality)
        if self.half_size:
            images = resize_antialiased(images, height, width)
        return images


def draw_photometric(
    enabled: bool, generator: torch.Generator, none_share: float = NONE_SHARE
) -> PhotometricTransform:
    """Draws what happens to a photo: nothing, JPEG of a half-size copy, or a single handling.

    Takes the same number of draws whatever the outcome, so that streams stay comparable.
    Nothing happens in ``none_share`` of the draws, or always unless ``enabled``.
    """
    kind, which, strength = (float(u) for u in torch.rand(3, generator=generator))
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    if not enabled or kind < none_share:
        return PhotometricTransform()

    def between(bounds: tuple[int, int] | tuple[float, float]) -> float:
        return bounds[0] + strength * (bounds[1] - bounds[0])

    quality = round(between(JPEG_QUALITIES))
    if kind < none_share + JPEG_AND_HALF_SHARE:
        return PhotometricTransform(half_size=True, jpeg_quality=quality)
    if which < 0.25:
        return PhotometricTransform(jpeg_quality=quality)
    if which < 0.5:
        return PhotometricTransform(half_size=True)
    if which < 0.75:
        return PhotometricTransform(blur_sigma_px=between(BLUR_SIGMAS_PX))
    return PhotometricTransform(
        noise_sigma_levels=between(NOISE_SIGMAS_LEVELS), noise_seed=noise_seed
    )


def resize_antialiased(images: Images, height: int, width: int) -> Crops:
    """Resizes with a triangle filter as wide as the reduction (Pillow's BILINEAR)."""
    if images.shape[-2:] == (height, width):
        return images
    return functional.interpolate(
        images, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )


def gaussian_blur(images: Images, sigma_px: float) -> Images:
    """Blurs with a Gaussian cut at three sigmas; borders are replicated."""
    radius = max(1, math.ceil(3 * sigma_px))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded, kernel, groups=3)
    return functional.conv2d(rows, kernel.transpose(2, 3), groups=3)


def add_noise(images: Images, sigma: float, seed: int) -> Images:
    """Adds Gaussian noise of standard deviation ``sigma`` ([0, 1] scale), clipped to [0, 1]."""
    noise = torch.randn(images.shape, generator=keyed_generator(seed, "noise"))
    return (images + sigma * noise.to(images)).clamp(0, 1)


def ycbcr_from_rgb(values: Images) -> Images:
    """BT.601 luminance and colour differences, the latter around 0; linear, for changes as well."""
    return torch.einsum("dc,bchw->bdhw", _YCBCR_FROM_RGB.to(values), values)


def rgb_from_ycbcr(values: Images) -> Images:
    """The inverse of ``ycbcr_from_rgb``."""
    return torch.einsum("dc,bchw->bdhw", _RGB_FROM_YCBCR.to(values), values)


def jpeg(images: Images, quality: int) -> Images:
    """JPEG as libjpeg writes and reads it: 4:2:0, its tables, blocks from the image's origin.

    Within half a level of Pillow's on average, odd sizes included.

    Args:
        images: In [0, 1].
        quality: 1 to 100 on libjpeg's scale.
    """
    height, width = images.shape[-2:]
    levels = _round_through(images * 255.0)
    ycbcr = _round_through(ycbcr_from_rgb(levels))
    luma, chroma = ycbcr[:, :1] - 128.0, ycbcr[:, 1:]
    luma = _quantise_blocks(luma, _table(_LUMA_TABLE, quality).to(levels))
    # Width is padded before chroma is halved, height after: so does libjpeg.
    chroma = functional.pad(chroma, (0, -width % MCU, 0, height % 2), mode="replicate")
    # Halves go down in even columns and up in odd ones, so that no colour drifts.
    columns = torch.arange(chroma.shape[-1] // 2, device=chroma.device)
    chroma = _round_through(functional.avg_pool2d(chroma, 2) + (columns % 2 - 0.5) * 0.01)
    chroma = _quantise_blocks(chroma, _table(_CHROMA_TABLE, quality).to(levels))
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    # Bilinear doubling is libjpeg's "fancy upsampling" (weights 9, 3, 3, 1 of 16).
    chroma = functional.interpolate(
        chroma[..., :half_height, :half_width], scale_factor=2, mode="bilinear"
    )[..., :height, :width]
    decoded = torch.cat([luma + 128.0, _round_through(chroma)], dim=1)
    return _round_through(rgb_from_ycbcr(decoded)).clamp(0.0, 255.0) / 255.0


def _quantise_blocks(
    planes: Float[Tensor, "batch planes height width"], table: Float[Tensor, "8 8"]
) -> Float[Tensor, "batch planes height width"]:
    """Rounds the DCT coefficients of 8x8 blocks to multiples of the table."""
    batch, channels, height, width = planes.shape
    padded = functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.reshape(batch, channels, rows, 8, columns, 8).transpose(3, 4)
    dct = _DCT.to(planes)
    # libjpeg rounds halves away from zero; the factor is larger than float32 rounding.
    coefficients = dct @ blocks @ dct.T / table * (1.0 + 1e-5)
    decoded = _round_through(dct.T @ (_round_through(coefficients) * table) @ dct)
    decoded = decoded.transpose(3, 4).reshape(batch, channels, rows * 8, columns * 8)
    return decoded[..., :height, :width].clamp(-128.0, 127.0)


def _round_through(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Rounds to the nearest integer; the gradient passes as if it had not."""
    return values + (values.round() - values).detach()


def _table(text: str, quality: int) -> Float[Tensor, "8 8"]:
    """Scales a quantisation table as jpeg_set_quality does, in integers."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    entries = [min(255, max(1, (int(entry) * scale + 50) // 100)) for entry in text.split()]
    return torch.tensor(entries, dtype=torch.float32).reshape(8, 8)


def _orthonormal_dct() -> Float[Tensor, "8 8"]:
    """The DCT-II of eight samples: row k holds frequency k."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(torch.float32)


_DCT = _orthonormal_dct()
