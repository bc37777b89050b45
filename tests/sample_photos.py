"""Real image files for tests: every format and defect that a folder of photos may hold."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms

pillow_heif.register_heif_opener()

ORIENTATION, MAKE, COPYRIGHT, GPS = 0x0112, 0x010F, 0x8298, 0x8825


def photo_image(height: int = 96, width: int = 80, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured blobs with a little noise, uint8 HWC: compresses like a photo."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth).astype(np.int16) + rng.integers(-4, 5, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def quadrant_image(height: int = 96, width: int = 64) -> NDArray[np.uint8]:
    """Red, green, blue and white quarters, as read: shows rotations, flips and wrong colours."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = (255, 255, 255)
    return image


def encode(image: NDArray[Any], file_format: str = "JPEG", **options: Any) -> bytes:
    """Encodes pixels with Pillow: ``JPEG``, ``PNG``, ``WEBP``, ``HEIF``, ``AVIF``..."""
    buffer = io.BytesIO()
    if file_format == "JPEG":
        options.setdefault("quality", 92)
    Image.fromarray(image).save(buffer, file_format, **options)
    return buffer.getvalue()


def jpeg_bytes(height: int = 96, width: int = 80, seed: int = 0, **options: Any) -> bytes:
    """An ordinary photo; other seeds give other photos."""
    return encode(photo_image(height, width, seed), "JPEG", **options)


def exif_bytes(orientation: int = 1, copyright: str | None = None, gps: bool = True) -> bytes:
    """EXIF as a phone writes it: orientation, maker, a place, perhaps a copyright notice."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKE] = "SecretPhoneMaker"
    if copyright is not None:
        exif[COPYRIGHT] = copyright
    if gps:
        exif[GPS] = {1: "N", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)}
    return exif.tobytes()


def turned_photo(orientation: int, file_format: str = "JPEG") -> bytes:
    """``quadrant_image`` stored as a camera held in another way stores it."""
    stored_as = {
        1: lambda upright: upright,
        2: lambda upright: upright[:, ::-1],
        3: lambda upright: upright[::-1, ::-1],
        4: lambda upright: upright[::-1],
        5: lambda upright: upright.transpose(1, 0, 2),
        6: lambda upright: np.rot90(upright, 1),
        7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
        8: lambda upright: np.rot90(upright, -1),
    }
    stored = np.ascontiguousarray(stored_as[orientation](quadrant_image()))
    options: dict[str, Any] = {"exif": exif_bytes(orientation)}
    if file_format in ("JPEG", "HEIF"):
        options["quality"] = 100
    if file_format == "WEBP":
        options["lossless"] = True
    return encode(stored, file_format, **options)


def cmyk_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(quadrant_image()).convert("CMYK").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def grey_16_bit_png(image: NDArray[np.uint8]) -> bytes:
    """Grey values of the first channel times 257, 16 bits each."""
    return encode(image[..., 0].astype(np.uint16) * 257, "PNG")


def transparent_png(image: NDArray[np.uint8], alpha: int) -> bytes:
    with_alpha = np.dstack([image, np.full(image.shape[:2], alpha, np.uint8)])
    return encode(with_alpha, "PNG")


def palette_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(16).save(buffer, "PNG")
    return buffer.getvalue()


def animation(file_format: str = "GIF", num_frames: int = 3) -> bytes:
    """Frames of different photos, a minute each; the first one is ``quadrant_image``."""
    frames = [Image.fromarray(quadrant_image())]
    frames += [Image.fromarray(photo_image(96, 64, seed)) for seed in range(1, num_frames)]
    buffer = io.BytesIO()
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:], duration=60_000)
    return buffer.getvalue()


def swapped_profile() -> bytes:
    """An ICC profile that is sRGB with red and green exchanged: ignoring it shows at once."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    name = profile.index("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "Swap".encode("utf-16-be")
    return bytes(profile)


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_album(folder: Path, photos: dict[str, bytes]) -> Path:
    """Writes files by relative path, e.g. ``{"ann/1.jpg": jpeg_bytes()}``."""
    for path, content in photos.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def face_album(folder: Path, photos_of: dict[str, int], side: int = 200) -> Path:
    """``<identity>/<i>.png`` with a real face each, see ``face_images``."""
    for person, (identity, number) in enumerate(photos_of.items()):
        (folder / identity).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(face_images(number, person, side)):
            (folder / identity / f"{index}.png").write_bytes(encode(image, "PNG"))
    return folder


def face_images(number: int, person: int = 0, side: int = 200) -> list[NDArray[np.uint8]]:
    """Crops of scikit-image's astronaut (NASA), each moved a little."""
    from skimage.data import astronaut

    image, crops = astronaut(), []
    for index in range(number):
        top, left = 4 + 3 * index, 110 + 5 * index + 2 * person
        crops.append(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return crops
