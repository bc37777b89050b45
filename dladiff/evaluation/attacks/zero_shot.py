"""Zero-shot customisation: an adapter reads one face at a time. Nothing is trained.

IP-Adapter (Ye et al. 2023, arXiv:2308.06721): FaceID reads a recogniser's embedding; FaceID-Plus
and -PlusV2 read the tokens of a CLIP vision tower besides. InstantID: see ``instantid``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import IPAdapterMixin
from diffusers.models.embeddings import (
    IPAdapterFaceIDPlusImageProjection,
    IPAdapterPlusImageProjection,
)
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.errors import ModelError
from dladiff.evaluation.attacks.customised import Customised, copy_of
from dladiff.evaluation.attacks.instantid import IdentityNet, draw_keypoints
from dladiff.evaluation.judges import face_crop
from dladiff.evaluation.settings import AttackSettings
from dladiff.image_values import Image, Images
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
    identity_net: IdentityNet | None = field(default=None, repr=False)
    """InstantID: shown where the face lies. Its photos are the attacker's square crops."""


@dataclass(frozen=True, eq=False)
class ToldFaces:
    """What an adapter is told of a person's photos, face by face."""

    embeds: Float[Tensor, "faces dim"]
    """Unit vectors; InstantID's of any length."""
    looks: Float[Tensor, "faces tokens features"] | None = None
    """CLIP's tokens of each face; FaceID-Plus only."""
    blank: Float[Tensor, "1 tokens features"] | None = None
    """CLIP's tokens of nothing, for the unguided half."""
    keypoints: Images | None = None
    """Each face's drawn landmarks; InstantID only."""

    def __len__(self) -> int:
        return len(self.embeds)


@torch.no_grad()
def read_faces(
    adapter: FaceAdapter, photos: Sequence[tuple[Image, Face]], device: torch.device | str
) -> ToldFaces:
    """What the adapter's encoders read in each photo's face.

    Args:
        adapter: Of any kind.
        photos: At least one; for InstantID squares of the checkpoint's size.
        device: Where the encoders live.
    """
    crops = [face_crop(adapter.encoder, *photo).to(device) for photo in photos]
    if adapter.identity_net is not None:
        drawn = [draw_keypoints(face.landmarks, len(photo)) for photo, face in photos]
        raw = torch.cat([adapter.encoder.network(crop).flatten(1) for crop in crops])
        return ToldFaces(raw, keypoints=torch.cat(drawn).to(device))
    embeds = torch.cat([adapter.encoder.embed(crop) for crop in crops])
    clip = adapter.clip
    if clip is None:
        return ToldFaces(embeds)
    looks = torch.cat([clip.network(face_crop(clip, *photo).to(device)) for photo in photos])
    # Zeros where the tower expects normalised pixels, so an image of its mean colour.
    mean = clip.network.get_buffer("mean")
    return ToldFaces(embeds, looks, clip.network(mean.expand(1, 3, clip.side, clip.side)))


class _UnetAlone(IPAdapterMixin):  # type: ignore[misc]  # diffusers has no types
    """What the loader of diffusers asks of a pipeline, and no more."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet

    def load_lora_weights(self, lora: dict[str, Tensor], adapter_name: str) -> None:
        self.unet.load_lora_adapter(lora, prefix="unet", adapter_name=adapter_name)

    def set_adapters(self, names: list[str], adapter_weights: list[float]) -> None:
        self.unet.set_adapters(names, adapter_weights)


def load_adapter(unet: UNet2DConditionModel, state: dict[str, dict[str, Tensor]]) -> None:
    """Puts an IP-Adapter into a UNet, with the LoRA that published ones of faces carry.

    Args:
        unet: Changed in place.
        state: ``image_proj`` and ``ip_adapter``, as such files have them.

    Raises:
        KeyError, RuntimeError, ValueError: If it is none, or of other widths.
    """
    _UnetAlone(unet).load_ip_adapter(
        state, subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False
    )


def begin_zero_shot(diffusion: DiffusionModel, adapter: FaceAdapter) -> Customised:
    """A copy of the UNet with the adapter in it, and with the LoRA that published ones carry.

    Raises:
        ModelError: If the file is no adapter of this kind, or of another checkpoint's widths.
    """
    if adapter.identity_net is not None and diffusion.second_text is None:
        raise ModelError("InstantID works on Stable Diffusion XL only: name one with --checkpoint")
    model = copy_of(diffusion, unet=True)
    try:
        flat = load_file(adapter.path)
        state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, value in flat.items():
            part, _, name = key.partition(".")
            state[part][name] = value.float()
        load_adapter(model.unet, state)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{adapter.path}: not an adapter of faces for this checkpoint: {error}"
        ) from error
    _require_kind(model, adapter)
    if adapter.clip is not None:
        _projection(model).shortcut = adapter.has_shortcut
    model.unet.to(diffusion.device).eval().requires_grad_(False)
    return model


def tell(
    model: Customised,
    adapter: FaceAdapter,
    faces: ToldFaces,
    row: int,
    num_images: int,
    settings: AttackSettings,
) -> dict[str, Any]:
    """One face as arguments of the sampler: what stands for nobody, if guided, then the face.

    The sampler passes embeddings only, so what else an adapter reads is handed over here.

    Args:
        model: Of ``begin_zero_shot``.
        adapter: That it was begun with.
        faces: All.
        row: Which of them.
        num_images: That are sampled together.
        settings: Whether the sampler runs a half that is told nobody (guidance above 1).
    """
    projection, is_guided = _projection(model), settings.guidance_scale > 1
    face = faces.embeds[row : row + 1]
    told = torch.stack([torch.zeros_like(face), face] if is_guided else [face])
    if faces.looks is not None and faces.blank is not None:
        look = faces.looks[row : row + 1]
        halves = torch.stack([faces.blank, look] if is_guided else [look])
        projection.clip_embeds = halves.expand(-1, num_images, -1, -1)
    if adapter.identity_net is None or faces.keypoints is None:
        return {"ip_adapter_image_embeds": [told]}
    tokens = projection(told).repeat_interleave(num_images, dim=0)
    adapter.identity_net.face_tokens = tokens
    return {
        "ip_adapter_image_embeds": [told[:, None]],
        "image": faces.keypoints[row : row + 1],
        "controlnet_conditioning_scale": settings.adapter_scale,
    }


def _require_kind(model: Customised, adapter: FaceAdapter) -> None:
    kinds = {
        IPAdapterFaceIDPlusImageProjection: "a FaceID-Plus file",
        IPAdapterPlusImageProjection: "an InstantID file",
    }
    found = kinds.get(type(_projection(model)), "a FaceID file")
    asked = "a FaceID file" if adapter.clip is None else "a FaceID-Plus file"
    if adapter.identity_net is not None:
        asked = "an InstantID file"
    if found != asked:
        raise ModelError(f"{adapter.path}: {found}, but {asked} was asked for; see --adapter-kind")


def require_width(model: Customised, adapter: FaceAdapter, faces: ToldFaces) -> None:
    """Refuses faces that another encoder than the adapter's has read.

    Raises:
        ModelError: With both widths.
    """
    parts = _projection(model).modules()
    first = next(part for part in parts if isinstance(part, nn.Linear))
    if first.in_features != faces.embeds.shape[1]:
        raise ModelError(
            f"{adapter.path}: reads embeddings of {first.in_features} numbers, but encoder "
            f"{adapter.encoder.name!r} gives {faces.embeds.shape[1]}: name the one that it was "
            "trained on, --adapter-encoder NAME=model.onnx"
        )


def _projection(model: Customised) -> Any:
    """The projection of the one adapter; diffusers sets its inputs as plain attributes."""
    return model.unet.encoder_hid_proj.image_projection_layers[0]
