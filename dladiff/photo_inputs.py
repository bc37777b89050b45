"""What a caller holds -> photos of the method: files, Pillow images, arrays and tensors.

Knows kinds, ranges and content keys, and how to give protected photos back in the kind that came
in. Knows no models.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from dladiff.content_keys import content_keys, hash_of_pixels
from dladiff.image_values import Image, image_to_tensor, tensor_to_image
from dladiff.pictures import ORIENTATION_TAG, to_srgb, upright
from dladiff.results import Photo

PhotoInput = str | Path | PIL.Image.Image | np.ndarray | Photo
"""A file by its path, a Pillow image, an RGB uint8 array (height, width, 3), or a ``Photo``."""


def read_photo(file: str | Path | bytes) -> Photo:
    """Reads a photo upright and in opaque sRGB, keyed by the file's sha256.

    ``dladiff protect`` reads the same pixels of a photo in sRGB; it keeps wide gamuts and
    transparency, of which an array could say nothing.

    Args:
        file: Its path, or its encoded bytes. HEIC needs ``pillow-heif``, which the extra
            ``[pipeline]`` brings.

    Raises:
        ValueError: If it is no picture that can be read.
        OSError: If the file itself cannot be read.
    """
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    name = "these bytes" if isinstance(file, bytes) else str(file)
    _accept_heif()
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            picture.load()
            image = _pixels(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        hint = "" if _accept_heif() else "; HEIC needs `pip install pillow-heif`"
        raise ValueError(f"{name}: no readable picture ({error}){hint}") from error
    return Photo(sha256(content).hexdigest(), image)


def photo_of(given: PhotoInput) -> Photo:
    """One photo; of pixels without a file the key is the hash of size and pixels.

    Raises:
        ValueError: If an array is not RGB uint8 (height, width, 3), or a file no picture.
        TypeError: If it is of none of these kinds.
    """
    if isinstance(given, Photo):
        return given
    if isinstance(given, str | Path):
        return read_photo(given)
    if isinstance(given, PIL.Image.Image):
        image = _pixels(given)
    elif isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
            raise ValueError(
                f"expected an RGB uint8 array (height, width, 3), got {given.dtype} {given.shape}"
            )
        image = given
    else:
        raise TypeError(
            f"expected a path, a Pillow image or an array per photo, got {type(given).__name__}"
        )
    return Photo(hash_of_pixels(image), image)


def photos_of_tensor(images: Tensor) -> list[Photo]:
    """Rounds a batch (N, 3, height, width) in [0, 1] to N photos of 8 bits.

    Raises:
        ValueError: If it has another shape, or values outside [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        shape = tuple(images.shape)
        raise ValueError(
            f"expected a float tensor (N, 3, height, width) in [0, 1], got {images.dtype} {shape}"
        )
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        low, high = float(images.min()), float(images.max())
        raise ValueError(f"expected image values in [0, 1], got [{low:g}, {high:g}]")
    pixels = [tensor_to_image(one[None].float()) for one in images]
    return [Photo(hash_of_pixels(image), image) for image in pixels]


@dataclass(frozen=True)
class OrderedPhotos:
    """Photos of one person in the order of their content, as ``dladiff protect`` takes them."""

    photos: list[Photo]
    places: list[int]
    """Where each photo stood in the order given."""

    @classmethod
    def of(cls, given: Sequence[Photo]) -> "OrderedPhotos":
        places = sorted(range(len(given)), key=lambda place: given[place].key)
        keys = content_keys([given[place].key for place in places])
        photos = [replace(given[place], key=key) for place, key in zip(places, keys, strict=True)]
        return cls(photos, places)

    def as_given(self, results: Sequence[Any]) -> list[Any]:
        """What became of each, in the order given."""
        back = dict(zip(self.places, results, strict=True))
        return [back[place] for place in range(len(self.places))]


def batch_of(images: Sequence[Image], like: Tensor) -> Tensor:
    """Photos as a batch on the device and of the dtype of the one that came in."""
    if not images:
        return like.clone()
    return torch.cat([image_to_tensor(image) for image in images]).to(like)


def _pixels(picture: PIL.Image.Image) -> Image:
    try:
        orientation = picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata make the parsers raise almost anything
        orientation = 1
    rgb, _ = to_srgb(picture)
    return np.array(upright(rgb, orientation))


def _accept_heif() -> bool:
    """Whether HEIC can be read."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True
