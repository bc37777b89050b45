"""Small face encoders of different architecture, distilled from SFace, shipped with the package.

Knows three tiny networks and their weights. They widen layer 2's ensemble: a perturbation that
moves several unlike networks moves an unseen one more often. They are no recognisers to rely on.
"""

from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dladiff.weight_files import STUDENTS

StudentName = Literal["plain", "mobile", "convnext"]

STUDENT_NAMES: tuple[StudentName, ...] = get_args(StudentName)
"""The shipped students, each of another family of networks."""


class StudentEncoder(nn.Module):
    """Images to unit embeddings in SFace's space of 128 dimensions.

    Args:
        trunk: Network from (batch, 3, 112, 112) in [-1, 1] to (batch, channels, 7, 7).
        channels: Channels of the trunk's output.
    """

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        # As in face recognisers: one learned filter per channel over the last map, not a mean,
        # since on aligned faces the place of a feature carries identity.
        self.pool = nn.Conv2d(channels, channels, 7, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 128)

    def forward(self, images: Float[Tensor, " batch 3 112 112"]) -> Float[Tensor, " batch 128"]:
        """Embeds aligned faces.

        Args:
            images: RGB in [0, 1] on the ArcFace 112 template.

        Returns:
            Unit vectors, differentiable in ``images``.
        """
        features = self.norm(self.pool(self.trunk(images * 2 - 1)))
        return functional.normalize(self.head(features.flatten(1)), dim=1)


def build_student(name: StudentName) -> StudentEncoder:
    """Returns the untrained network of a student."""
    if name == "plain":
        return StudentEncoder(_plain_trunk(), 192)
    if name == "mobile":
        return StudentEncoder(_mobile_trunk(), 192)
    if name == "convnext":
        return StudentEncoder(_convnext_trunk(), 160)
    raise ValueError(f"unknown student encoder {name!r}; shipped are {', '.join(STUDENT_NAMES)}")


def load_student(name: StudentName, folder: Path = STUDENTS) -> StudentEncoder:
    """Loads a shipped student in fp32, in eval mode and frozen.

    Args:
        name: One of :data:`STUDENT_NAMES`.
        folder: Where ``<name>.safetensors`` lies.

    Returns:
        The encoder; its output is differentiable in the images.

    Raises:
        ValueError: If there is no such student.
        FileNotFoundError: If its weights are not installed.
    """
    student = build_student(name)
    state = load_file(folder / f"{name}.safetensors")
    student.load_state_dict({key: _as_loaded(value) for key, value in state.items()})
    return student.eval().requires_grad_(False)


def _as_loaded(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _convolution(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


def _plain_trunk() -> nn.Module:
    """Stacked 3x3 convolutions without any shortcut."""
    return nn.Sequential(
        _convolution(3, 24, 2),
        _convolution(24, 48, 2),
        _convolution(48, 48),
        _convolution(48, 96, 2),
        _convolution(96, 96),
        _convolution(96, 160, 2),
        _convolution(160, 192),
    )


class _InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018): expand, depthwise, project, add."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.SiLU(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        return features + changed if self.has_shortcut else changed


def _mobile_trunk() -> nn.Module:
    """Inverted residuals with depthwise convolutions."""
    widths = [(24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    widths += [(64, 128, 2), (128, 128, 1), (128, 192, 1)]
    blocks = [_InvertedResidual(inputs, outputs, stride) for inputs, outputs, stride in widths]
    return nn.Sequential(_convolution(3, 24, 2), *blocks)


class _ConvNextBlock(nn.Module):
    """ConvNeXt's block (Liu et al. 2022): large depthwise filter, one norm, wide pointwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, 3 * channels, 1),
            nn.GELU(),
            nn.Conv2d(3 * channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        return features + self.scale * changed


def _convnext_trunk() -> nn.Module:
    """Patches first, group norm instead of batch norm in the trunk."""
    return nn.Sequential(
        nn.Conv2d(3, 48, 4, stride=4),
        nn.GroupNorm(1, 48),
        _ConvNextBlock(48),
        nn.Conv2d(48, 96, 2, stride=2),
        _ConvNextBlock(96),
        _ConvNextBlock(96),
        nn.Conv2d(96, 160, 2, stride=2),
        _ConvNextBlock(160),
        _ConvNextBlock(160),
        nn.GroupNorm(1, 160),
    )
