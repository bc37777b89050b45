"""How an attacker's encoder may see a perturbed face: warp, filter, flip and handling, drawn.

Knows draws and matrices; takes no crop and knows nothing of embeddings.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dladiff.faces import ARCFACE_SIDE, Matrix
from dladiff.transforms import PhotometricTransform, draw_photometric


@dataclass(frozen=True, eq=False)
class FaceView:
    """One draw of M' = M + jitter [P], of the resampling and of the photo's handling."""

    jitter: Matrix
    """From the template to where this view puts it, in pixels of the 112 px template."""
    prefilter: bool
    """Average over the area of a crop pixel first, as careful pipelines do; else as cv2."""
    transform: PhotometricTransform


@dataclass(frozen=True)
class Warps:
    """Which warps of the 112 px template are drawn."""

    scale_range: tuple[float, float] = (0.9, 1.1)
    flip: bool = True
    jitter_px: float = 2.0
    """Largest shift along an axis [P: jitter]."""


OUR_WARPS, PAPERS_WARPS = Warps(), Warps(scale_range=(1.0, 1.0), flip=False)


def draw_view(warps: Warps, handling: bool, generator: torch.Generator) -> FaceView:
    """Draws one view; takes the same number of draws whatever the outcome."""
    scale, x, y, flip, prefilter = (float(u) for u in torch.rand(5, generator=generator))
    low, high = warps.scale_range
    zoom = low + scale * (high - low)
    centre = (ARCFACE_SIDE - 1) / 2
    mirror = -zoom if warps.flip and flip < 0.5 else zoom
    shift_x, shift_y = ((2 * u - 1) * warps.jitter_px for u in (x, y))
    jitter = np.array(
        [
            [mirror, 0, centre - mirror * centre + shift_x],
            [0, zoom, centre - zoom * centre + shift_y],
            [0, 0, 1.0],
        ]
    )
    return FaceView(jitter, prefilter < 0.5, draw_photometric(handling, generator))
