"""Image values: uint8 <-> [0, 1] <-> [-1, 1], and the tensor aliases used everywhere.

Knows scales and rounding. Knows nothing of files, faces or models.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
"""RGB images, NCHW, float in [0, 1]."""
Perturbation = Float[Tensor, "batch 3 height width"]
"""A difference of images on the [0, 1] scale: 1/255 is one 8-bit level."""
Crops = Float[Tensor, "crops 3 crop_height crop_width"]
"""Images cut, warped or resized out of others: same values, sizes of their own."""
Image = UInt8[np.ndarray, "height width 3"]
"""One photo at the edges of the package: RGB, HWC, uint8."""

LEVEL = 1.0 / 255.0
"""One 8-bit level on the [0, 1] scale."""


def levels_to_unit(levels: float) -> float:
    """Converts a budget in 8-bit levels to the [0, 1] scale (7 -> 7/255)."""
    return levels * LEVEL


def image_to_tensor(image: Image, device: torch.device | str = "cpu") -> Images:
    """Converts one uint8 HWC photo to a batch of one in [0, 1], float32."""
    tensor = torch.from_numpy(np.array(image)).to(device)
    return tensor.permute(2, 0, 1).unsqueeze(0).to(torch.float32).div_(255.0)


def tensor_to_image(images: Images) -> Image:
    """Rounds a batch of one in [0, 1] to the nearest of 256 levels, HWC uint8.

    Rounds, never truncates: truncation would shift every pixel by half a level and break
    the budget.

    Raises:
        ValueError: If the batch does not hold exactly one image.
    """
    if images.shape[0] != 1:
        raise ValueError(f"expected a batch of one image, got {images.shape[0]}")
    rounded = images.detach()[0].clamp(0, 1).mul_(255.0).round_().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).cpu().numpy())


def to_pixel_values(images: Images) -> Float[Tensor, "batch 3 height width"]:
    """Maps [0, 1] to [-1, 1], the range at the door of a VAE."""
    return images * 2.0 - 1.0
