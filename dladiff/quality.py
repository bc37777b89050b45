"""How visible a change is: PSNR, SSIM and LPIPS of two photos.

Knows pairs of images. Knows nothing of what was done to them or why.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dladiff.errors import ModelError
from dladiff.image_values import Image, Images, image_to_tensor
from dladiff.weight_files import LPIPS

_LPIPS_SIDE = 1024
"""Larger photos are compared at this long side; the measure was fitted to small patches."""
_SSIM_WINDOW = 11
_BAND_ROWS = 512
_NUM_LAYERS = 5


def psnr_db(clean: Image, protected: Image) -> float:
    """Peak signal-to-noise ratio over all values in dB; infinite for equal photos."""
    squares = 0.0
    for rows in _bands(clean.shape[0]):
        difference = clean[rows].astype(np.float32) - protected[rows].astype(np.float32)
        squares += float(np.sum(np.square(difference), dtype=np.float64))
    mean_square = squares / clean.size
    return math.inf if mean_square == 0 else 10 * math.log10(255.0**2 / mean_square)


def ssim(clean: Image, protected: Image) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window of 11, sigma 1.5), mean of RGB.

    Only the part that changed is computed, with the window's margin: elsewhere it is 1.
    """
    changed = np.any(clean != protected, axis=2)
    if not changed.any():
        return 1.0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    margin = _SSIM_WINDOW
    part = (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )
    pair = clean[part], protected[part]
    height, width = pair[0].shape[:2]
    if min(height, width) < _SSIM_WINDOW:
        raise ValueError(f"expected photos of at least {_SSIM_WINDOW} px, got {min(height, width)}")
    missing = sum(_dissimilarity(*pair, rows) for rows in _bands(height))
    return 1.0 - missing / clean.size


def _dissimilarity(clean: Image, protected: Image, rows: slice) -> float:
    """Sum of 1 - SSIM over these rows, computed with the window's margin around them."""
    # Imported late: with it comes half of SciPy, which the steps before need not wait for.
    from skimage.metrics import structural_similarity

    top, bottom = max(0, rows.start - _SSIM_WINDOW), rows.stop + _SSIM_WINDOW
    pair = [image[top:bottom].astype(np.float32) for image in (clean, protected)]
    _, similarity = structural_similarity(
        *pair, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inner = similarity[rows.start - top : rows.stop - top]
    return float(np.sum(1.0 - inner, dtype=np.float64))


def _bands(height: int) -> Iterator[slice]:
    """Rows a few at a time: a dozen arrays of a large photo's size do not fit into memory."""
    for top in range(0, height, _BAND_ROWS):
        # The last band takes what would be too low for a window.
        is_last = top + _BAND_ROWS + _SSIM_WINDOW > height
        yield slice(top, height if is_last else top + _BAND_ROWS)
        if is_last:
            return


class LearnedPerceptualDistance(nn.Module):
    """LPIPS with AlexNet, version 0.1 (Zhang et al. 2018, arXiv:1801.03924)."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        try:
            kernels = [weights[f"net.{i}.weight"] for i in range(_NUM_LAYERS)]
            biases = [weights[f"net.{i}.bias"] for i in range(_NUM_LAYERS)]
            shares = [weights[f"lin.{i}.weight"] for i in range(_NUM_LAYERS)]
        except KeyError as error:
            raise ModelError(f"the LPIPS weights lack {error}") from error
        self.kernels = nn.ParameterList(kernels).requires_grad_(False)
        self.biases = nn.ParameterList(biases).requires_grad_(False)
        self.shares = nn.ParameterList(share.reshape(1, -1, 1, 1) for share in shares)
        self.shares.requires_grad_(False)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))

    def forward(self, images: Images, others: Images) -> Float[Tensor, " batch"]:
        """The distance of each pair of images in [0, 1]."""
        distance = torch.zeros(images.shape[0], device=images.device)
        pairs = zip(self.features(images), self.features(others), self.shares, strict=True)
        for ours, theirs, share in pairs:
            squared = (_unit_channels(ours) - _unit_channels(theirs)).square()
            distance = distance + (squared * share).sum(dim=1).mean(dim=(1, 2))
        return distance

    def features(self, images: Images) -> list[Tensor]:
        """The five activations of images in [0, 1], normalised from [-1, 1] as the authors do."""
        hidden = (images * 2.0 - 1.0 - self.mean) / self.std
        strides_and_padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
        features = []
        for layer, (stride, padding) in enumerate(strides_and_padding):
            if layer in (1, 2):
                hidden = functional.max_pool2d(hidden, kernel_size=3, stride=2)
            kernel, bias = self.kernels[layer], self.biases[layer]
            hidden = functional.relu(functional.conv2d(hidden, kernel, bias, stride, padding))
            features.append(hidden)
        return features

    @torch.no_grad()
    def between(self, clean: Image, protected: Image) -> float:
        """The distance of two photos, at most 1,024 px on their long side."""
        device = self.mean.device
        scale = min(1.0, _LPIPS_SIDE / max(clean.shape[:2]))
        size = [max(1, round(n * scale)) for n in clean.shape[:2]]
        pair = []
        for image in (clean, protected):  # one large tensor at a time
            images = image_to_tensor(image, device)
            pair.append(functional.interpolate(images, size, mode="area") if scale < 1 else images)
        return float(self(*pair))


def _unit_channels(features: Tensor) -> Tensor:
    # The term under the root: its derivative at zero is infinite, where no channel is active.
    norm: Tensor = (features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()
    return features / (norm + 1e-10)


def load_learned_perceptual_distance(
    device: torch.device | str, path: Path | None = None
) -> LearnedPerceptualDistance | None:
    """Loads LPIPS from a safetensors file; None where the default file is not installed.

    Raises:
        ModelError: If the file is damaged, or a file was named that is not there.
    """
    if path is None and not LPIPS.is_file():
        return None
    try:
        # Stored in half precision, computed in single.
        weights = {key: value.float() for key, value in load_file(path or LPIPS).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the LPIPS weights cannot be read: {error}") from error
    return LearnedPerceptualDistance(weights).eval().to(device)
