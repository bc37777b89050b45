"""What steps against an autoencoder cost, counted from its configuration: no weights, no device.

Its network runs on torch's meta device, which knows shapes alone. Seconds of a GPU are derived from
that count and its maker's figure, until somebody measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dladiff.accelerator import Precision
from dladiff.config import AutoencoderSettings, LoopSettings
from dladiff.diffusion.checkpoint import configured_autoencoder
from dladiff.diffusion.latent_spaces import latent_space
from dladiff.diffusion.memory import rows_that_fit
from dladiff.image_values import to_pixel_values
from dladiff.layer1.likeness import AutoencoderLikeness

GPU_TFLOPS = {"A100": 312, "H100": 989, "RTX 4090": 165, "L4": 121}
"""Dense bfloat16 TFLOP/s with float32 sums, as their makers state them."""
REACHED = 0.4
"""Share of it that convolutions of such networks are taken to reach; an assumption."""
_PHOTOS = 4
"""Of a person, among which mixtures of latents are shared."""


@dataclass(frozen=True)
class PassCost:
    """One photo through an autoencoder and back, in TFLOP."""

    encode: float
    decode: float
    back: float

    def of_a_photo(self, loop: LoopSettings) -> float:
        """All steps of a loop through this autoencoder, of one of four photos of a person."""
        steps = loop.looks_before(loop.num_steps)
        both = self.encode + self.decode
        # The way back costs each part about what the way there did, since weights are frozen.
        decode_and_back = self.decode + self.back * self.decode / both
        mixtures = AutoencoderLikeness.view_shares[2] * loop.mixtures_per_step / _PHOTOS
        return float(steps * (both + self.back + mixtures * decode_and_back))


def count_pass(vae: Any, resolution: int) -> PassCost:
    """Counts one image of ``resolution`` pixels a side, by torch's own formulas.

    Args:
        vae: On the meta device.
        resolution: Its side.
    """
    space = latent_space(vae)
    images = torch.zeros(1, 3, resolution, resolution, device="meta", requires_grad=True)
    flops = []
    with FlopCounterMode(display=False) as counter:
        latents = space.encode(vae, to_pixel_values(images))
        flops.append(counter.get_total_flops())
        shown = space.decode(vae, latents)
        flops.append(counter.get_total_flops())
        torch.autograd.grad(shown.sum(), images)
        flops.append(counter.get_total_flops())
    encoded, decoded, all_of_it = (count / 1e12 for count in flops)
    return PassCost(encoded, decoded - encoded, all_of_it - decoded)


def gpu_seconds(tflop: float) -> dict[str, float]:
    """By GPU: derived, not measured."""
    return {name: tflop / (peak * REACHED) for name, peak in GPU_TFLOPS.items()}


@dataclass(frozen=True)
class CountedCost:
    """Of a photo's steps against all autoencoders that take turns."""

    tflop: float
    images_a_pass: dict[int, int]
    """By GiB of a GPU's memory: as many as fit into the largest autoencoder; 0: one, with parts
    computed once more to save memory."""


def count_steps(
    autoencoders: Sequence[AutoencoderSettings],
    loop: LoopSettings,
    precision: Precision,
    memories_gib: Sequence[int],
) -> CountedCost:
    """Counts the steps through autoencoders that are named, from their configurations.

    Raises:
        ModelError: If one has no readable configuration, or is of a class that is not supported.
    """
    costs, rows = list[float](), dict[int, int]()
    for settings in autoencoders:
        with torch.device("meta"):
            vae, resolution = configured_autoencoder(settings)
        costs.append(count_pass(vae, resolution).of_a_photo(loop))
        for gib in memories_gib:
            fitting = rows_that_fit(vae, resolution, precision, gib * 2**30)
            rows[gib] = min(rows.get(gib, fitting), fitting)
    return CountedCost(sum(costs) / len(costs), rows)
