"""The antidote: a network that predicts clean photos from protected ones, and its file.

Trained by ``tools.training.remover`` on pairs that anybody can make with a public protection, as
LightShed (USENIX Security 2025) and BridgePure (arXiv:2412.21061) do. None is installed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dladiff.errors import ModelError
from dladiff.image_values import Images, image_to_tensor, tensor_to_image
from dladiff.results import Face

FILE_KIND = "dladiff-remover-1"
"""Written into the file; raised with the architecture."""
_WIDTHS = (48, 96, 160)
_FACTOR = 8
"""Pixels per cell of the deepest level, along a side."""
_TILE_SIDE, _TILE_MARGIN = 1024, 96
"""The margin is wider than the reach of the network: a tile's middle is what the whole gives."""
_MAX_WHOLE_PIXELS = 2_000_000

Features = Float[Tensor, "batch channels height width"]
Photo = UInt8[np.ndarray, "_ _ 3"]
"""RGB, HWC, uint8, of any size."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


class Remover(nn.Module):
    """A U-Net of 1.9 million weights that adds a correction to images.

    Residual blocks without normalisation, as DRUNet's (Zhang et al. 2021, arXiv:2008.13751): what
    is learnt on crops then holds for whole photos, and a tile's middle does not depend on its tile.
    Half the resolution enters, four pixels as twelve channels. At the start it changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        high, middle, low = _WIDTHS
        self.head = nn.Conv2d(12, high, 3, padding=1)
        self.encoder = nn.ModuleList([_blocks(high), _blocks(middle)])
        self.down = nn.ModuleList([_half(high, middle), _half(middle, low)])
        self.body = _blocks(low)
        self.up = nn.ModuleList([_double(low, middle), _double(middle, high)])
        self.decoder = nn.ModuleList([_blocks(middle), _blocks(high)])
        self.tail = nn.Conv2d(high, 12, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, images: Images) -> Images:
        """Images of sides that are multiples of 8; the result may leave [0, 1] a little."""
        features = self.head(functional.pixel_unshuffle(images, 2) - 0.5)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            features = blocks(features)
            skips.append(features)
            features = down(features)
        features = self.body(features)
        for up, blocks in zip(self.up, self.decoder, strict=True):
            features = blocks(up(features) + skips.pop())
        corrected: Images = images + functional.pixel_shuffle(self.tail(features), 2)
        return corrected

    @torch.no_grad()
    def remove(self, photo: Photo) -> Photo:
        """One whole photo without its protection, as far as the network knows how.

        Photos of more than 2 megapixels are done in overlapping tiles, with the same result.
        """
        device = self.tail.weight.device
        height, width = photo.shape[:2]
        if height * width <= _MAX_WHOLE_PIXELS:
            return self._whole(photo, device)
        result = np.empty_like(photo)
        for (top, bottom), (above, below) in _tiles(height):
            for (left, right), (before, behind) in _tiles(width):
                tile = self._whole(photo[above:below, before:behind], device)
                part = tile[top - above : bottom - above, left - before : right - before]
                result[top:bottom, left:right] = part
        return result

    def _whole(self, photo: Photo, device: torch.device) -> Photo:
        images = image_to_tensor(photo, device)
        height, width = photo.shape[:2]
        padding = (0, -width % _FACTOR, 0, -height % _FACTOR)
        cleaned = self(functional.pad(images, padding, mode="replicate"))
        return tensor_to_image(cleaned[..., :height, :width])


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Features) -> Features:
        changed: Features = features + self.second(functional.silu(self.first(features)))
        return changed


def load_remover(path: Path, device: torch.device | str) -> Remover:
    """Loads a file of ``save_remover``, frozen, in float32.

    Raises:
        ModelError: If there is none, or it holds something else.
    """
    remedy = "train one with `python -m tools.training.remover CLEAN PROTECTED OUT.safetensors`"
    if not path.is_file():
        raise ModelError(f"there is no remover at {path}: {remedy}")
    try:
        with safe_open(path, "pt") as file:
            kind = (file.metadata() or {}).get("kind")
        if kind != FILE_KIND:
            raise ModelError(f"{path} holds {kind or 'no remover'}, not {FILE_KIND}: {remedy}")
        remover = Remover()
        remover.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path}: no weights of a remover: {error}") from error
    return remover.eval().requires_grad_(False).to(device)


def save_remover(remover: nn.Module, path: Path) -> None:
    """Writes the weights, replacing the former file at once."""
    partial = path.with_suffix(".partial")
    weights = {name: value.contiguous() for name, value in remover.state_dict().items()}
    save_file(weights, partial, metadata={"kind": FILE_KIND})
    partial.replace(path)


def box_in_photo(face: Face | None, photo: Photo) -> Box:
    """A face's box in whole pixels within the photo; without a face, the whole photo."""
    height, width = photo.shape[:2]
    if face is None:
        return 0, 0, width, height
    left, top, right, bottom = (round(value) for value in face.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, max(min(right, width), left + 1), max(min(bottom, height), top + 1)


def mean_change_levels(before: Photo, after: Photo) -> float:
    """Mean absolute difference of two photos of one size, in 8-bit levels.

    Of a remover's input and output it is the score by which protected photos are told from clean
    ones: there is more to remove.
    """
    return float(np.abs(after.astype(np.int16) - before.astype(np.int16)).mean())


def _tiles(length: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Stretches that cover a side, and each with its margins; those begin at multiples of 8."""
    for begin in range(0, length, _TILE_SIDE):
        end = min(begin + _TILE_SIDE, length)
        yield (begin, end), (max(begin - _TILE_MARGIN, 0), min(end + _TILE_MARGIN, length))


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(_Residual(channels), _Residual(channels))


def _half(channels: int, to_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, to_channels, 2, stride=2)


def _double(channels: int, to_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, to_channels, 2, stride=2)
