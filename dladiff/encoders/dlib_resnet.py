"""dlib's face recognition ResNet as a frozen torch module; a family of encoders of its own.

Knows the network, its face chip and its weights, which ``tools/training/export_dlib_resnet.py``
converted. King 2017, "High Quality Face Recognition with Deep Metric Learning": 29 convolutions
(He et al. 2015, narrowed), metric loss on distances, CC0.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dladiff.errors import ModelError
from dladiff.image_values import Images

STEM_CHANNELS = 32
"""Channels of the 7x7 convolution before the first block."""
STEM_KERNEL = 7
BLOCKS: tuple[tuple[int, int], ...] = (
    *[(32, 1)] * 3,
    *[(64, 2), (64, 1), (64, 1), (64, 1)],
    *[(128, 2), (128, 1), (128, 1)],
    *[(256, 2), (256, 1), (256, 1)],
    (256, 2),
)
"""Channels and stride of each residual block, from the input on: dlib's alevel4 to alevel0."""
DESCRIPTOR_SIZE = 128
DLIB_SIDE = 150
"""Side of the face chip in pixels."""
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

    Built with weights to be loaded: convolutions with dlib's affine layers inside; ``mean``, the
    mean red, green and blue of 255; ``projection``, pooled features to the descriptor; ``centre``,
    subtracted from descriptors, zeros for dlib's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, STEM_CHANNELS, STEM_KERNEL, stride=2)
        blocks, inputs = [], STEM_CHANNELS
        for channels, stride in BLOCKS:
            blocks.append(_ResidualBlock(inputs, channels, stride))
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.mean: Tensor
        self.projection: Tensor
        self.centre: Tensor
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("projection", torch.zeros(inputs, DESCRIPTOR_SIZE))
        self.register_buffer("centre", torch.zeros(DESCRIPTOR_SIZE))

    def forward(self, images: Images) -> Float[Tensor, "batch 128"]:
        """Describes chips (RGB in [0, 1], 150 px); not of unit length."""
        features = torch.relu(self.stem((images * 255.0 - self.mean) / 256.0))
        features = self.blocks(functional.max_pool2d(features, 3, 2))
        descriptors: Tensor = features.mean(dim=(2, 3)) @ self.projection
        return descriptors - self.centre


def load_dlib_resnet(path: Path) -> DlibResNet:
    """Loads converted weights (stored in fp16) in fp32, frozen.

    Raises:
        ModelError: If the file cannot be read or holds another network.
    """
    network = DlibResNet()
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        network.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} is damaged or another model: reinstall dladiff") from error
    return network.eval().requires_grad_(False)


class _ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; with stride 2 the shortcut is an average of 2x2."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, channels, 3, stride)
        self.second = _convolution(channels, channels, 3, stride=1)
        self.halves = stride == 2

    def forward(self, features: Tensor) -> Tensor:
        changed = self.second(torch.relu(self.first(features)))
        shortcut = functional.avg_pool2d(features, 2) if self.halves else features
        return torch.relu(_padded_sum(changed, shortcut))


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """Adds as dlib's add_prev does: what has fewer channels, rows or columns gets zeros after them.

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


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    """Padded only without stride, as dlib's."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0)
