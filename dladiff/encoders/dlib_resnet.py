"""dlib's face recognition ResNet as a frozen torch module; a family of encoders of its own.

Knows the network, its face chip and its centre. King 2017, "High Quality Face Recognition with
Deep Metric Learning": 29 convolutions (He et al. 2015, narrowed), metric loss on distances, CC0.
"""

import json

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dladiff.encoders.dlib_file import (
    BLOCKS,
    INPUT_SIDE,
    Convolution,
    DlibWeights,
    read_dlib_weights,
)
from dladiff.image_values import Images
from dladiff.weight_files import DLIB_CENTRE

DLIB_SIDE = INPUT_SIDE
DLIB_TEMPLATE = np.array(
    [[45.54, 45.19], [103.22, 44.72], [73.27, 77.22], [49.21, 100.38], [100.10, 100.95]],
    dtype=np.float64,
)
"""Left eye, right eye, nose, mouth corners in pixels of dlib's 150 px chip (padding .25).

dlib aligns by eye corners and the base of the nose, or by 68 points; our face detectors give other
five. So dlib's own chips (``get_face_chip_details`` on its CC0 5-point predictor) were made of
1,072 public-domain portraits, and this is the median there of YuNet's points. The same points of
dlib's mean face shape, (47.5, 46.6) (100.5, 46.6) (74.0, 76.6) (50.4, 103.0) (97.6, 103.0), tell
people apart a little less well: AUC .99955 beside .99980 on 144 photos of 12 people."""


class DlibResNet(nn.Module):
    """Face chips to centred descriptors.

    dlib compares descriptors by distance (.6), and all lie in one direction: the cosine of two
    different people is .83 on average. Less the mean descriptor it is .05, at nearly the same
    separation, so that 0 means a stranger here as with other encoders.

    Args:
        weights: As stored; each affine layer is folded into the convolution before it.
        centre: (128,): subtracted from descriptors. Zeros: dlib's own descriptors.
    """

    def __init__(self, weights: DlibWeights, centre: Float[Tensor, "128"]) -> None:
        super().__init__()
        stem, *rest = weights.convolutions
        self.stem = _folded(stem, stride=2)
        strides = [stride for _, stride in BLOCKS]
        self.blocks = nn.Sequential(
            *map(_ResidualBlock, rest[0::2], rest[1::2], strides),
        )
        self.mean: Tensor
        self.projection: Tensor
        self.centre: Tensor
        self.register_buffer("mean", torch.tensor(weights.input_mean).reshape(1, 3, 1, 1))
        self.register_buffer("projection", torch.from_numpy(weights.projection))
        self.register_buffer("centre", centre)

    def forward(self, images: Images) -> Float[Tensor, "batch 128"]:
        """Describes chips (RGB in [0, 1], 150 px); not of unit length."""
        features = torch.relu(self.stem((images * 255.0 - self.mean) / 256.0))
        features = self.blocks(functional.max_pool2d(features, 3, 2))
        descriptors: Tensor = features.mean(dim=(2, 3)) @ self.projection
        return descriptors - self.centre


def load_dlib_resnet() -> DlibResNet:
    """Loads dlib's weights with the shipped centre, frozen.

    Raises:
        ModelError: If they are not installed or not the known file.
    """
    centre = torch.tensor(json.loads(DLIB_CENTRE.read_text())["centre"])
    return DlibResNet(read_dlib_weights(), centre).eval().requires_grad_(False)


class _ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; with stride 2 the shortcut is an average of 2x2."""

    def __init__(self, first: Convolution, second: Convolution, stride: int) -> None:
        super().__init__()
        self.first = _folded(first, stride)
        self.second = _folded(second, stride=1)
        self.halves = stride == 2

    def forward(self, features: Tensor) -> Tensor:
        changed = self.second(torch.relu(self.first(features)))
        shortcut = functional.avg_pool2d(features, 2) if self.halves else features
        return torch.relu(_padded_sum(changed, shortcut))


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """As dlib's add_prev: where one has fewer channels, rows or columns, zeros stand after them.

    Both happens: shortcuts have fewer channels, and an unpadded convolution of 8x8 gives 3x3
    where the average gives 4x4.
    """
    if a.shape == b.shape:
        return a + b
    shape = [max(sizes) for sizes in zip(a.shape[1:], b.shape[1:], strict=True)]

    def padded(features: Tensor) -> Tensor:
        channels, rows, columns = (
            wanted - size for wanted, size in zip(shape, features.shape[1:], strict=True)
        )
        return functional.pad(features, (0, columns, 0, rows, 0, channels))

    return padded(a) + padded(b)


def _folded(layer: Convolution, stride: int) -> nn.Conv2d:
    """The convolution with its affine layer inside; padded only without stride, as dlib's."""
    outputs, inputs, kernel, _ = layer.filters.shape
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    gamma = layer.gamma.astype(np.float64)
    filters = layer.filters * gamma[:, None, None, None]
    biases = layer.biases * gamma + layer.beta
    with torch.no_grad():
        convolution.weight.copy_(torch.from_numpy(filters))
        assert convolution.bias is not None
        convolution.bias.copy_(torch.from_numpy(biases))
    return convolution
