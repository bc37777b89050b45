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
USABLE = 0.8
"""Of a device's memory; allocators leave gaps, and others have their share."""
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


def rows_on(device: torch.device, vae: Any, resolution: int, precision: Precision) -> int | None:
    """Images a pass on a device; None: any number, on a CPU.

    Where not even one fits, the autoencoder is told to compute its blocks once more on the way back
    instead of saving what is in them: a third more work, and one row a pass.
    """
    total = memory_bytes(device)
    if total is None:
        return None
    rows = rows_that_fit(vae, resolution, precision, total)
    if rows == 0 and vae._supports_gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    return max(1, rows)
