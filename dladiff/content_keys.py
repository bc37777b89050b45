"""What keys a photo's noise: its content, so that a photo gets the same bytes wherever it lies.

Knows hashes; the library and the pipeline name photos by these same functions. No torch.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def content_keys(hashes: Sequence[str]) -> list[str]:
    """Numbers the copies of a photo within a set, so that each is a photo of its own.

    Args:
        hashes: One per photo: of its file, or of its pixels where there is no file.

    Returns:
        One key per photo, all different; of a photo without copies, its hash.
    """
    seen: Counter[str] = Counter()
    keys = []
    for one in hashes:
        copy = seen[one]
        seen[one] += 1
        keys.append(sha256(f"{one} {copy}".encode()).hexdigest() if copy else one)
    return keys


def hash_of_pixels(image: NDArray[np.uint8]) -> str:
    """The sha256 of a photo that has no file: of its size, then its RGB bytes row by row."""
    height, width = image.shape[:2]
    digest = sha256(f"rgb8 {height}x{width}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
