"""Identity encoders: aligned face crops to unit embeddings, differentiable, frozen.

Knows weights and how each encoder wants its pixels. Knows nothing of photos or of attacks.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dladiff.config import EncoderSettings
from dladiff.encoders.arcface_onnx import arcface_network, read_onnx
from dladiff.encoders.quantised_onnx import read_folded
from dladiff.errors import ModelError
from dladiff.faces import ARCFACE_SIDE, ARCFACE_TEMPLATE
from dladiff.image_values import Images
from dladiff.weight_files import encoder_files

UnitEmbeddings = Float[Tensor, "batch dim"]

FACES_PER_PASS = 16
"""Faces that are differentiated at a time: a set of group photos has hundreds."""


@dataclass(frozen=True, eq=False)
class IdentityEncoder:
    """One frozen encoder and the geometry of the crops it reads."""

    name: str
    network: nn.Module
    """Images in [0, 1] to embeddings of any length."""
    held_out: bool = False
    """Only measures; never in a loss or a stop rule."""
    weight: float = 1.0
    side: int = ARCFACE_SIDE
    """Side of the crop in pixels."""
    template: np.ndarray = field(default_factory=ARCFACE_TEMPLATE.copy)
    """float64 (5, 2): where the landmarks lie in the crop, in pixels."""

    def embed(self, crops: Images) -> UnitEmbeddings:
        """Embeds aligned crops (RGB in [0, 1], ``side`` pixels) as unit vectors."""
        return functional.normalize(self.network(crops).flatten(1), dim=1)


def load_identity_encoder(
    settings: EncoderSettings, device: torch.device | str, cache_dir: Path | None = None
) -> IdentityEncoder:
    """Loads one encoder, checks it and freezes it.

    Args:
        settings: Which one, and its place in the loss.
        device: Where it shall live.
        cache_dir: Where converted weights are kept between runs; None: not kept.

    Raises:
        ModelError: If weights are missing, damaged or disagree with their reference runtime.
    """
    first, *_ = encoder_files(settings).values()
    if settings.kind == "dlib_resnet":
        from dladiff.encoders.dlib_resnet import DLIB_SIDE, DLIB_TEMPLATE, load_dlib_resnet

        return IdentityEncoder(
            name=settings.name,
            network=load_dlib_resnet(first).to(device),
            held_out=settings.held_out,
            weight=settings.weight,
            side=DLIB_SIDE,
            template=DLIB_TEMPLATE,
        )
    side = ARCFACE_SIDE
    if settings.kind == "sface":
        network, _ = arcface_network(read_folded(first, cache_dir), settings.name, "0..255")
    elif settings.kind == "arcface_onnx":
        network, side = arcface_network(
            read_onnx(first), settings.name, settings.pixels, settings.channels
        )
    elif settings.kind == "student":
        network = _student(settings.name, first.parent)
    else:
        network = _ClipVision(settings)
        side = 2 * ARCFACE_SIDE
    return IdentityEncoder(
        name=settings.name,
        network=network.eval().requires_grad_(False).to(device),
        held_out=settings.held_out,
        weight=settings.weight,
        side=side,
        template=ARCFACE_TEMPLATE * (side / ARCFACE_SIDE),
    )


def _student(name: str, folder: Path) -> nn.Module:
    from dladiff.encoders.students import STUDENT_NAMES, load_student

    for known in STUDENT_NAMES:
        if known == name:
            return load_student(known, folder)
    raise ModelError(f"unknown student encoder {name!r}; shipped are {', '.join(STUDENT_NAMES)}")


class _ClipVision(nn.Module):
    """A CLIP vision tower as IP-Adapter reads it: pooled, or the tokens before the last layer."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        from transformers import CLIPVisionModelWithProjection
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        try:
            self.tower: Any = CLIPVisionModelWithProjection.from_pretrained(
                settings.path, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"encoder {settings.name!r}: {error}") from error
        self.penultimate = settings.clip_output == "penultimate"
        self.side = int(self.tower.config.image_size)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.side:
            size = (self.side, self.side)
            images = functional.interpolate(images, size=size, mode="bicubic", antialias=True)
        pixel_values = (images - self.mean) / self.std
        output = self.tower(pixel_values, output_hidden_states=self.penultimate)
        embeddings: Tensor = output.hidden_states[-2] if self.penultimate else output.image_embeds
        return embeddings
