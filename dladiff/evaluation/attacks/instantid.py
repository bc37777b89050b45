"""InstantID: an adapter says who, a ControlNet over five keypoints says where ("IdentityNet").

Wang et al. 2024, arXiv:2401.07519, sec. 3.2; published for Stable Diffusion XL. The adapter is of
IP-Adapter-Plus's build and reads a recogniser's embedding as it comes, not as a unit vector.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.parts import refusing
from dladiff.image_values import Images, image_to_tensor

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""Colours of the keypoints, RGB: left eye, right eye, nose, left and right mouth corner."""
NOSE = 2
LIMB_BRIGHTNESS = 0.6
"""Brightness of the lines to the nose, relative to the points that they come from."""
DRAWN_SIDE = 1024
POINT_RADIUS, LIMB_HALF_WIDTH = 10, 4
"""Pixels of an image of ``DRAWN_SIDE``, as the published network was trained on."""


class IdentityNet(ControlNetModel):  # type: ignore[misc]  # diffusers has no types
    """A ControlNet whose cross-attention reads the face where others read the prompt."""

    face_tokens: Float[Tensor, "rows tokens features"] | None = None
    """One per row of the batch that comes next, the unguided half first."""

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **arguments: Any
    ) -> Any:
        """Computes like ``ControlNetModel``, without the prompt's ``encoder_hidden_states``."""
        if self.face_tokens is None:
            raise RuntimeError("face_tokens must be set before an IdentityNet is asked")
        return super().forward(sample, timestep, self.face_tokens, **arguments)


def load_identity_net(folder: Path, device: torch.device | str) -> IdentityNet:
    """Loads the ControlNet of InstantID, frozen, from a folder in diffusers format.

    Raises:
        ModelError: If it is missing, damaged or of another kind.
    """
    with refusing(f"{folder}: cannot be loaded as a ControlNet in diffusers format"):
        net = IdentityNet.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
    loaded: IdentityNet = net.eval().requires_grad_(False).to(device)
    return loaded


def draw_keypoints(landmarks: Float[np.ndarray, "5 2"], side: int) -> Images:
    """The image that an IdentityNet is given: a face's landmarks, each tied to the nose.

    Args:
        landmarks: Pixels of an image of ``side``.
        side: Of the square image; what is drawn scales with it.

    Returns:
        One image on the CPU.
    """
    canvas = np.zeros((side, side, 3), np.uint8)
    scale = side / DRAWN_SIDE
    half_width, radius = (max(1, round(size * scale)) for size in (LIMB_HALF_WIDTH, POINT_RADIUS))
    for index, point in enumerate(landmarks):
        if index == NOSE:
            continue
        along = landmarks[NOSE] - point
        centre = _pixel((point + landmarks[NOSE]) / 2)
        axes = (int(np.linalg.norm(along) / 2), half_width)
        angle = int(np.degrees(np.arctan2(along[1], along[0])))
        colour = [int(LIMB_BRIGHTNESS * value) for value in COLOURS[index]]
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, colour, thickness=-1)
    for point, full_colour in zip(landmarks, COLOURS, strict=True):
        cv2.circle(canvas, _pixel(point), radius, full_colour, thickness=-1)
    return image_to_tensor(canvas, "cpu")


def _pixel(point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    return int(point[0]), int(point[1])
