"""Attention maps of a UNet, and the distance of two surrogates' maps.

Maps are recorded by attention processors, only at the layers asked for; every other layer keeps
its fused attention. They are returned by the forward that made them, keyed by layer: nothing
stays on the modules. Axes: B batch, H heads, Q queries, K keys, D channels of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import Timesteps
from dladiff.diffusion.denoising_loss import Predict

AttentionMap = Float[Tensor, "batch queries keys"]
AttentionMaps = dict[str, AttentionMap]
"""Maps by layer name, heads averaged; each row sums to 1."""


def attention_layers(
    unet: UNet2DConditionModel, latent_side: int, include_largest: bool = False
) -> tuple[str, ...]:
    """Names the attention layers that L_att reads, in the order in which they run.

    Down blocks, mid block and the first up level that has attention, where the map's side is at
    most half the latents' (a quarter from 64 cells on, where half would be maps of 1,024 x 1,024)
    [X]. The UNet may stop after the last of them.

    Args:
        unet: Of any Stable-Diffusion shape.
        latent_side: Side of its latents.
        include_largest: Twice that side, on all up levels (preset ``paper``).

    Raises:
        ValueError: If no layer is small enough.
    """
    limit = latent_side // (4 if latent_side >= 64 else 2) * (2 if include_largest else 1)
    num_down, num_up = len(unet.down_blocks), len(unet.up_blocks)
    down_sides = [latent_side >> level for level in range(num_down)]
    sides = {f"down_blocks.{level}": side for level, side in enumerate(down_sides)}
    sides["mid_block"] = down_sides[-1]
    sides |= {f"up_blocks.{level}": down_sides[num_down - 1 - level] for level in range(num_up)}
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    found: list[str] = []
    for block, side in sides.items():
        layers = [name for name in names if name.startswith(block + ".")]
        if 0 < side <= limit:
            found += layers
        if block.startswith("up_blocks") and layers and not include_largest:
            break
    if not found:
        raise ValueError(f"no attention layer of the UNet has maps of at most {limit} cells a side")
    return tuple(found)


class AttentionReader:
    """Reads maps at named layers of one UNet, whichever surrogate's weights it runs with."""

    def __init__(
        self, unet: UNet2DConditionModel, layers: Sequence[str], drop_bos: bool = True
    ) -> None:
        """Prepares a reader; the UNet is touched during ``read`` only.

        Args:
            unet: The UNet that all surrogates share.
            layers: In the order in which they run; see ``attention_layers``.
            drop_bos: Drop the first column of cross-attention maps and renormalise: the
                beginning-of-text token absorbs most of it and tells nothing.
        """
        self.modules = {name: unet.get_submodule(name) for name in layers}
        self.drop_bos = drop_bos

    def read(
        self,
        predict: Predict,
        noisy_latents: Latents,
        timesteps: Timesteps,
        stop_after_last_map: bool = True,
    ) -> tuple[AttentionMaps, Latents | None]:
        """Runs one forward and returns its maps, and its prediction unless it was stopped.

        Args:
            predict: A surrogate that runs this reader's UNet.
            noisy_latents: q(z, t, e).
            timesteps: One per row.
            stop_after_last_map: Leave the UNet once the last map is read; what follows costs
                almost half of a forward.
        """
        maps: AttentionMaps = {}
        num_maps = len(self.modules) if stop_after_last_map else None
        former = {name: module.get_processor() for name, module in self.modules.items()}
        for name, module in self.modules.items():
            module.set_processor(_RecordingProcessor(name, maps, num_maps, self.drop_bos))
        try:
            return maps, predict(noisy_latents, timesteps)
        except _AllMapsRead:
            return maps, None
        finally:
            for name, module in self.modules.items():
                module.set_processor(former[name])


class _AllMapsRead(BaseException):
    """Leaves a UNet's forward once all maps are read; never leaves this file."""


class _RecordingProcessor:
    """Attention that keeps its probabilities; otherwise as diffusers' ``AttnProcessor2_0``."""

    def __init__(
        self, name: str, maps: AttentionMaps, num_maps: int | None, drop_bos: bool
    ) -> None:
        self.name = name
        self.maps = maps
        self.num_maps = num_maps
        self.drop_bos = drop_bos

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "batch queries channels"],
        encoder_hidden_states: Float[Tensor, "batch keys context"] | None = None,
        attention_mask: Float[Tensor, "..."] | None = None,
        temb: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        is_cross = encoder_hidden_states is not None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query_BHQD = _split_heads(attn.to_q(hidden_states), attn.heads)
        key_BHKD = _split_heads(attn.to_k(context), attn.heads)
        scores_BHQK = query_BHQD @ key_BHKD.transpose(-1, -2) * attn.scale
        if attention_mask is not None:
            scores_BHQK = scores_BHQK + attention_mask.view(len(context), -1, 1, context.shape[1])
        # Softmax in fp32 whatever autocast says: L_att compares small differences.
        at_least_float32 = torch.promote_types(scores_BHQK.dtype, torch.float32)
        probs_BHQK = scores_BHQK.softmax(dim=-1, dtype=at_least_float32)
        self.maps[self.name] = self._average(probs_BHQK, is_cross)
        if len(self.maps) == self.num_maps:
            raise _AllMapsRead
        value_BHKD = _split_heads(attn.to_v(context), attn.heads)
        out_BHQD = probs_BHQK.to(value_BHKD.dtype) @ value_BHKD
        output: Tensor = attn.to_out[0](out_BHQD.transpose(1, 2).flatten(2))
        scaled: Tensor = output / attn.rescale_output_factor
        return scaled

    def _average(
        self, probs_BHQK: Float[Tensor, "batch heads queries keys"], is_cross: bool
    ) -> Float[Tensor, "batch queries keys_kept"]:
        averaged = probs_BHQK.mean(dim=1)
        if not (is_cross and self.drop_bos):
            return averaged
        words = averaged[..., 1:]
        return words / (words.sum(dim=-1, keepdim=True) + 1e-8)


def _split_heads(
    states: Float[Tensor, "batch positions channels"], heads: int
) -> Float[Tensor, "batch heads positions head_channels"]:
    batch, positions, channels = states.shape
    return states.view(batch, positions, heads, channels // heads).transpose(1, 2)


def attention_distance(static: AttentionMaps, dynamic: AttentionMaps) -> Float[Tensor, " batch"]:
    """L_att of each row: sum over layers of ||a - b||^2 / (||a||^2 + 1e-8).

    Relative, so that no layer outweighs the others by its size [X]; the paper writes the plain
    squared norm (section 3, L_att).

    Args:
        static: Maps of theta_s on the clean images.
        dynamic: Maps of theta_d on the perturbed ones, at the same (t, e).

    Raises:
        ValueError: If the two hold different layers.
    """
    if static.keys() != dynamic.keys():
        raise ValueError(f"maps of different layers: {sorted(static.keys() ^ dynamic.keys())}")
    distances = [
        (a - dynamic[name]).square().sum(dim=(1, 2)) / (a.square().sum(dim=(1, 2)) + 1e-8)
        for name, a in static.items()
    ]
    return torch.stack(distances).sum(dim=0)
