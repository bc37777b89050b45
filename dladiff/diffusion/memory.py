"""How many images go through an autoencoder at a time, with their gradients, in a device's memory.

By a count of what torch saves for the way back, not by trial: it holds for any autoencoder whose
layers are those of the published ones; the figure is what ``benchmarks.model_cost`` counts of
Stable Diffusion's, where maps of attention are kept too.
"""

from typing import Any

import torch

from dladiff.accelerator import Precision, memory_bytes

SAVED_TENSORS = 38.0
"""What encoding and decoding save, in tensors as large as the layers' outputs of one block of each
level."""
DECODER_SHARE = 0.65
"""Of it, what decoding saves."""
UNET_BYTES_PER_CELL = 2200
"""What a UNet of Stable Diffusion's kind saves of one row, per value of one output of a block of
each level: of 1.5's 4.5 GiB, maps of attention among them. About the same in both precisions:
autocast keeps what it casts."""
UNET_BYTES_PER_WEIGHT = 6
"""In float32, and once more as autocast lowers it."""
USABLE = 0.8
"""The share of a device's memory to count on; allocators leave gaps, others have theirs."""
OTHER_BYTES = int(1.5 * 2**30)
"""What does not grow with the batch: recognisers, weights, the photos themselves."""


def bytes_of_row(vae: Any, resolution: int, precision: Precision) -> int:
    """What one image of ``resolution`` pixels a side needs, encoded and decoded with gradients."""
    config = vae.config
    if type(vae).__name__ == "AutoencoderKLQwenImage":
        channels = [config.base_dim * factor for factor in config.dim_mult]
    else:
        channels = list(config.get("block_out_channels") or config.encoder_block_out_channels)
    cells = sum(count * resolution**2 / 4**level for level, count in enumerate(channels))
    size = 2 if precision == "bfloat16" else 4
    return int(SAVED_TENSORS * cells * size)


def rows_that_fit(vae: Any, resolution: int, precision: Precision, total_bytes: int) -> int:
    """Images a pass in a memory of ``total_bytes``; 0: not even one."""
    free = USABLE * total_bytes - OTHER_BYTES
    return max(0, int(free // bytes_of_row(vae, resolution, precision)))


def needs_checkpoints(vae: Any, resolution: int, precision: Precision, total_bytes: int) -> bool:
    """Whether not even what decoding one image saves fits into a memory of ``total_bytes``."""
    free = USABLE * total_bytes - OTHER_BYTES
    return DECODER_SHARE * bytes_of_row(vae, resolution, precision) > free


def rows_on(device: torch.device, vae: Any, resolution: int, precision: Precision) -> int | None:
    """Images a pass on a device; None: any number, on a CPU; 0: one, encoded twice.

    Where not even one fits, its encoding is computed once more on the way back, so that nothing of
    it is saved beside the decoding: a sixth more work. Where that does not fit either, the
    autoencoder is told to do so with each of its blocks: a third more.
    """
    total = memory_bytes(device)
    if total is None:
        return None
    if vae._supports_gradient_checkpointing and needs_checkpoints(
        vae, resolution, precision, total
    ):
        vae.enable_gradient_checkpointing()
    return rows_that_fit(vae, resolution, precision, total)


def unet_rows_on(device: torch.device, unet: Any, latent_side: int) -> int | None:
    """Rows a pass of a UNet with gradients on a device; None: any number, on a CPU."""
    total = memory_bytes(device)
    if total is None:
        return None
    weights = sum(weight.numel() for weight in unet.parameters()) * UNET_BYTES_PER_WEIGHT
    channels = unet.config.block_out_channels
    cells = sum(count * latent_side**2 / 4**level for level, count in enumerate(channels))
    free = USABLE * total - OTHER_BYTES - weights
    return max(1, int(free // (UNET_BYTES_PER_CELL * cells)))
