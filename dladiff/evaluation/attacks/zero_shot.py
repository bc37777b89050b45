"""Zero-shot customisation: an adapter of the IP-Adapter-FaceID family reads one face at a time.

Ye et al. 2023, arXiv:2308.06721. FaceID reads a recogniser's embedding; FaceID-Plus and -PlusV2
read the tokens of a CLIP vision tower besides. Nothing is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder, UnitEmbeddings
from dladiff.errors import ModelError
from dladiff.evaluation.attacks.customised import Customised, copy_of
from dladiff.evaluation.judges import face_crop
from dladiff.image_values import Image
from dladiff.results import Face


@dataclass(frozen=True)
class FaceAdapter:
    """An adapter file and the encoders that it was trained on."""

    path: Path
    encoder: IdentityEncoder = field(repr=False)
    clip: IdentityEncoder | None = field(default=None, repr=False)
    """The CLIP tower that FaceID-Plus reads, by its tokens before the last layer."""
    has_shortcut: bool = False
    """PlusV2: the recogniser's tokens are added once more to what the resampler makes of both."""


@dataclass(frozen=True, eq=False)
class ToldFaces:
    """What an adapter is told of a person's photos, face by face."""

    embeds: UnitEmbeddings
    looks: Float[Tensor, "faces tokens features"] | None = None
    """CLIP's tokens of each face; FaceID-Plus only."""
    blank: Float[Tensor, "1 tokens features"] | None = None
    """CLIP's tokens of nothing, for the unguided half."""

    def __len__(self) -> int:
        return len(self.embeds)


@torch.no_grad()
def read_faces(
    adapter: FaceAdapter, photos: Sequence[tuple[Image, Face]], device: torch.device | str
) -> ToldFaces:
    """What the adapter's encoders read in each photo's face.

    Args:
        adapter: Of any kind.
        photos: At least one.
        device: Where the encoders live.
    """
    embeds = torch.cat(
        [adapter.encoder.embed(face_crop(adapter.encoder, *photo).to(device)) for photo in photos]
    )
    clip = adapter.clip
    if clip is None:
        return ToldFaces(embeds)
    looks = torch.cat([clip.network(face_crop(clip, *photo).to(device)) for photo in photos])
    # Zeros where the tower expects normalised pixels, so an image of its mean colour.
    mean = clip.network.get_buffer("mean")
    return ToldFaces(embeds, looks, clip.network(mean.expand(1, 3, clip.side, clip.side)))


def begin_zero_shot(diffusion: DiffusionModel, adapter: FaceAdapter) -> Customised:
    """A copy of the UNet with the adapter in it, and with the LoRA that published ones carry.

    Raises:
        ModelError: If the file is no adapter of this kind, or of another checkpoint's widths.
    """
    model = copy_of(diffusion, unet=True)
    try:
        flat = load_file(adapter.path)
        state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, value in flat.items():
            part, _, name = key.partition(".")
            state[part][name] = value.float()
        model.unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
        for lora in model.unet._load_ip_adapter_loras([state]).values():
            model.unet.load_lora_adapter(lora, prefix="unet", adapter_name="faceid")
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{adapter.path}: not an IP-Adapter-FaceID file for this checkpoint: {error}"
        ) from error
    reads_clip = isinstance(_projection(model), IPAdapterFaceIDPlusImageProjection)
    if reads_clip != (adapter.clip is not None):
        kind, other = ("a Plus", "no Plus") if reads_clip else ("no Plus", "a Plus")
        raise ModelError(
            f"{adapter.path}: {kind} adapter, but {other} adapter was asked for; see --adapter-kind"
        )
    if reads_clip:
        _projection(model).shortcut = adapter.has_shortcut
    model.unet.to(diffusion.device).eval().requires_grad_(False)
    return model


def tell(
    model: Customised, faces: ToldFaces, row: int, num_images: int, guidance_scale: float
) -> Float[Tensor, "guided 1 dim"]:
    """One face as the sampler wants it: what stands for nobody, if guided, then the embedding.

    Args:
        model: Of ``begin_zero_shot``; a Plus adapter's projection is handed CLIP's tokens here,
            since the sampler passes it embeddings only.
        faces: All.
        row: Which of them.
        num_images: That are sampled together.
        guidance_scale: Above 1 the sampler runs a half that is told nobody.
    """
    is_guided = guidance_scale > 1
    if faces.looks is not None and faces.blank is not None:
        look = faces.looks[row : row + 1]
        halves = torch.stack([faces.blank, look] if is_guided else [look])
        _projection(model).clip_embeds = halves.expand(-1, num_images, -1, -1)
    told = faces.embeds[row : row + 1]
    return torch.stack([torch.zeros_like(told), told]) if is_guided else told[None]


def _projection(model: Customised) -> Any:
    """Of the one adapter; diffusers sets its inputs as plain attributes."""
    return model.unet.encoder_hid_proj.image_projection_layers[0]
