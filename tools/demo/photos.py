"""An album of one person that needs no download: crops of scikit-image's ``astronaut``.

The photo shows Eileen Collins; NASA, public domain. It lies inside the installed package.
"""

from pathlib import Path

from PIL import Image
from skimage.data import astronaut

_CROPS = {
    "portrait.jpg": ((0, 0, 512, 512), 1.0, False),
    "close.jpg": ((96, 8, 352, 264), 1.5, False),
    "mirrored.jpg": ((40, 0, 400, 360), 1.0, True),
    "small.png": ((0, 0, 448, 400), 0.6, False),
}
"""File name: box (left, top, right, bottom) in pixels, scale, mirrored."""


def write_demo_album(folder: Path) -> Path:
    """Writes the album ``folder/astronaut/`` unless it is there already.

    Files that exist are left alone, so that a second run finds their versions unchanged.

    Returns:
        ``folder``: INPUT with one identity.
    """
    identity = folder / "astronaut"
    identity.mkdir(parents=True, exist_ok=True)
    photo = Image.fromarray(astronaut())
    for name, (box, scale, mirrored) in _CROPS.items():
        if (identity / name).exists():
            continue
        crop = photo.crop(box)
        size = round(crop.width * scale), round(crop.height * scale)
        crop = crop.resize(size, Image.Resampling.LANCZOS)
        if mirrored:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop.save(identity / name, quality=95)
    return folder
