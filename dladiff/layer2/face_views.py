"""How an attacker's encoder may see a perturbed face: warp, filter, flip and handling, drawn.

Knows canvases and crops; differentiable in the perturbation. Knows nothing of embeddings.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dladiff.config import Layer2Settings
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.faces import (
    ARCFACE_SIDE,
    ARCFACE_TEMPLATE,
    Matrix,
    estimate_similarity,
    warp,
    warp_prefiltered,
)
from dladiff.image_values import Crops, Perturbation
from dladiff.layer2.face_canvas import FaceCanvas
from dladiff.transforms import PhotometricTransform, draw_photometric


@dataclass(frozen=True, eq=False)
class FaceView:
    """One draw of M' = M + jitter [P], of the resampling and of the photo's handling."""

    jitter: Matrix
    """From the template to where this view puts it, in pixels of the 112 px template."""
    prefilter: bool
    """Average over the area of a crop pixel first, as careful pipelines do; else as cv2."""
    transform: PhotometricTransform

    def crop(
        self, canvas: FaceCanvas, perturbation: Perturbation, encoder: IdentityEncoder
    ) -> Crops:
        """The crop that ``encoder`` would read of the perturbed face."""
        crop_from_template = estimate_similarity(ARCFACE_TEMPLATE, encoder.template) @ self.jitter
        to_crop = crop_from_template @ canvas.template_from_lattice
        masked = perturbation * canvas.mask
        if self.transform == PhotometricTransform() and not self.prefilter:
            # The warp is linear, so the photo may be sampled at its own pixels, aliased as cv2
            # would, and the smooth perturbation on its lattice.
            crop = warp(masked, np.linalg.inv(to_crop), encoder.side)
            native = np.linalg.inv(crop_from_template @ canvas.template_from_native)
            return (crop + warp(canvas.native, native, encoder.side)).clamp(0.0, 1.0)
        image = self.transform.apply((canvas.base + masked).clamp(0.0, 1.0))
        sample = warp_prefiltered if self.prefilter else warp
        return sample(image, np.linalg.inv(to_crop), encoder.side)


def draw_view(settings: Layer2Settings, generator: torch.Generator) -> FaceView:
    """Draws one view; takes the same number of draws whatever the outcome."""
    scale, x, y, flip, prefilter = (float(u) for u in torch.rand(5, generator=generator))
    low, high = settings.scale_range
    zoom = low + scale * (high - low)
    centre = (ARCFACE_SIDE - 1) / 2
    mirror = -zoom if settings.flip and flip < 0.5 else zoom
    shift_x, shift_y = ((2 * u - 1) * settings.jitter_px for u in (x, y))
    jitter = np.array(
        [
            [mirror, 0, centre - mirror * centre + shift_x],
            [0, zoom, centre - zoom * centre + shift_y],
            [0, 0, 1.0],
        ]
    )
    return FaceView(jitter, prefilter < 0.5, draw_photometric(settings.transforms, generator))


def still_view(canvas: FaceCanvas, perturbation: Perturbation, encoder: IdentityEncoder) -> Crops:
    """The crop as a plain pipeline takes it: no jitter, no filter, no handling."""
    return FaceView(np.eye(3), False, PhotometricTransform()).crop(canvas, perturbation, encoder)
