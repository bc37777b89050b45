"""Zero-shot customisation: an adapter in the layout of IP-Adapter-FaceID reads one face embedding.

Ye et al. 2023, arXiv:2308.06721. Nothing is trained; the identity encoder's word is all that the
model learns of a person.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder, UnitEmbeddings
from dladiff.errors import ModelError
from dladiff.evaluation.attacks.customised import Customised, copy_of


@dataclass(frozen=True)
class FaceAdapter:
    """An adapter file and the encoder whose embeddings it was trained on."""

    path: Path
    encoder: IdentityEncoder = field(repr=False)


def begin_zero_shot(diffusion: DiffusionModel, adapter: FaceAdapter) -> Customised:
    """A copy of the UNet with the adapter in it.

    Raises:
        ModelError: If the file is no adapter of this layout, or of another checkpoint's widths.
    """
    model = copy_of(diffusion, unet=True)
    try:
        flat = load_file(adapter.path)
        state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, value in flat.items():
            part, _, name = key.partition(".")
            state[part][name] = value.float()
        model.unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{adapter.path}: not an IP-Adapter-FaceID file for this checkpoint: {error}"
        ) from error
    model.unet.to(diffusion.device).eval().requires_grad_(False)
    return model


def told_embeds(
    embeds: UnitEmbeddings, row: int, guidance_scale: float
) -> Float[Tensor, "guided 1 dim"]:
    """One face as the sampler wants it: zeros for the unguided half, then the embedding."""
    told = embeds[row : row + 1]
    return torch.stack([torch.zeros_like(told), told]) if guidance_scale > 1 else told[None]
