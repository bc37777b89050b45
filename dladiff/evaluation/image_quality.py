"""How far generated images are from photos, as pictures and whoever they show: KID.

A supplement to the judges' scores, never an effect: a generator can be spoilt without hiding a
face, and can hide a face in a clean picture.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from dladiff.evaluation.attackers_view import Crop
from dladiff.image_values import image_to_tensor
from dladiff.quality import LearnedPerceptualDistance

Features = Float[np.ndarray, "_ channels"]
"""One row per image."""


class KernelDistance:
    """KID on the last features of AlexNet as LPIPS has them, averaged over the picture.

    Not on Inception's, which are a download: values compare among themselves and with no
    published ones.
    """

    def __init__(self, network: LearnedPerceptualDistance) -> None:
        self._network = network

    def between(self, images: Sequence[Crop], photos: Sequence[Crop]) -> float | None:
        """The distance of two lists of square RGB images of one size.

        Returns:
            About 0 where both look alike, also a little below; None with fewer than two of a kind.
        """
        if min(len(images), len(photos)) < 2:
            return None
        return squared_mmd(self._features(images), self._features(photos))

    @torch.no_grad()
    def _features(self, images: Sequence[Crop]) -> Features:
        device = self._network.mean.device
        batch = torch.cat([image_to_tensor(image, device) for image in images])
        pooled: Features = self._network.features(batch)[-1].mean(dim=(2, 3)).double().cpu().numpy()
        return pooled


def squared_mmd(first: Features, second: Features) -> float:
    """Unbiased squared MMD under ``k(x, y) = (x.y / d + 1)^3`` (arXiv:1801.01401, section 4).

    Args:
        first: At least two rows.
        second: Likewise; as many or not.
    """

    def kernel(one: Features, other: Features) -> Float[np.ndarray, "_ _"]:
        cubes: Float[np.ndarray, "_ _"] = (one @ other.T / one.shape[1] + 1) ** 3
        return cubes

    def among(rows: Features) -> float:
        pairs = kernel(rows, rows)
        return float((pairs.sum() - pairs.trace()) / (len(rows) * (len(rows) - 1)))

    return among(first) + among(second) - 2 * float(kernel(first, second).mean())
