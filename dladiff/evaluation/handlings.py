"""What happens to photos between publication and attack: recompression, resizing, blur, noise.

Acts on whole 8-bit photos with Pillow, as platforms and attackers do. Purification, which needs
the checkpoint, stands in ``purification``.
"""

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image

from dladiff.evaluation.settings import PURIFICATIONS, REMOVAL, HandlingName
from dladiff.image_values import image_to_tensor, tensor_to_image
from dladiff.randomness import derive_seed
from dladiff.recoding import Photo, half_size, jpeg
from dladiff.transforms import gaussian_blur

BLUR_SIGMA_PX = 1.0
NOISE_SIGMA_LEVELS = 4.0
NOISY_UPSCALE_FACTOR = 2
NOISY_UPSCALE_SIGMA_LEVELS = 12.75
"""0.05 of the range, at the enlarged size: about half of it is left after shrinking."""
CLEAN_MIX_EVERY = 4
"""Every so many photos one is the clean original: 25 %."""
SMOOTHING = (1.2, 6.0, 60)
"""Blur in pixels, noise in levels and JPEG quality under which a generated face must still be
recognised for a recogniser's word to be believed, see ``judges``."""


def handle_photos(
    name: HandlingName,
    photos: Sequence[Photo],
    clean: Sequence[Photo],
    seed: int = 0,
    remover: Callable[[Photo], Photo] | None = None,
) -> list[Photo]:
    """The photos as they reach the attacker.

    Args:
        name: Purifications leave the photos alone here.
        photos: Published photos.
        clean: Their originals, in the same order; ``clean_mix`` takes every fourth from them.
        seed: Of the noise.
        remover: Of ``unprotect``, see ``Remover.remove``.

    Raises:
        ValueError: If ``unprotect`` is asked for without a remover.
    """
    if name == REMOVAL:
        if remover is None:
            raise ValueError("the handling unprotect needs a remover")
        return [remover(photo) for photo in photos]
    if name == "clean_mix":
        return [
            clean[index] if index % CLEAN_MIX_EVERY == 0 else photo
            for index, photo in enumerate(photos)
        ]
    if name in _NOISY_HANDLINGS:
        return [
            _NOISY_HANDLINGS[name](photo, derive_seed(seed, "handling", index))
            for index, photo in enumerate(photos)
        ]
    return [_HANDLINGS[name](photo) for photo in photos]


def blur(photo: Photo, sigma_px: float) -> Photo:
    """A Gaussian blur, rounded to levels."""
    return tensor_to_image(gaussian_blur(image_to_tensor(photo), sigma_px))


def add_noise(photo: Photo, sigma_levels: float, seed: int) -> Photo:
    """Gaussian noise, rounded and clipped to levels."""
    noise = np.random.default_rng(seed).normal(0, sigma_levels, photo.shape)
    return np.clip(np.round(photo + noise), 0, 255).astype(np.uint8)


def noisy_upscale(photo: Photo, seed: int) -> Photo:
    """Twice the size by Lanczos, Gaussian noise, and back to its size by Lanczos.

    After *noisy upscaling* of Hönig et al. 2024 (arXiv:2406.12027, section 4.3), who enlarge by a
    learned upscaler that also denoises: theirs is stronger, ours needs no model.
    """
    height, width = photo.shape[:2]
    size = (width * NOISY_UPSCALE_FACTOR, height * NOISY_UPSCALE_FACTOR)
    large = PIL.Image.fromarray(photo).resize(size, PIL.Image.Resampling.LANCZOS)
    noisy = add_noise(np.array(large), NOISY_UPSCALE_SIGMA_LEVELS, seed)
    small = PIL.Image.fromarray(noisy).resize((width, height), PIL.Image.Resampling.LANCZOS)
    return np.array(small)


def smoothed(image: Photo, seed: int = 0) -> Photo:
    """A generated image without its finest patterns: blur, then noise, then JPEG."""
    sigma_px, noise_levels, quality = SMOOTHING
    return jpeg(add_noise(blur(image, sigma_px), noise_levels, seed), quality)


_NOISY_HANDLINGS: dict[str, Callable[[Photo, int], Photo]] = {
    "noise": lambda photo, seed: add_noise(photo, NOISE_SIGMA_LEVELS, seed),
    "noisy_upscale": noisy_upscale,
}
_HANDLINGS: dict[str, Callable[[Photo], Photo]] = {
    "none": lambda photo: photo,
    "jpeg75": jpeg,
    "half": half_size,
    "jpeg75_half": lambda photo: jpeg(half_size(photo)),
    "blur": lambda photo: blur(photo, BLUR_SIGMA_PX),
    **dict.fromkeys(PURIFICATIONS, lambda photo: photo),
}
