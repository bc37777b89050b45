"""Encoded photos <-> pixels: what a file is, is judged by its content, never by its name.

Knows formats, sizes and defects. Knows nothing of stores, sets or persons. Every trouble is
a ``PhotoError`` with its reason.
"""

import io
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from dladiff.pictures import UnsupportedPictureError, grey_to_8_bits, upright
from dladiff.pictures import to_srgb as flat_srgb
from pipeline.config import OperationSettings
from pipeline.errors import PhotoError
from pipeline.images.colours import PLAIN, Colours, Foreign, HighRange, read_colours
from pipeline.images.damage import has_trailing_bytes, with_end
from pipeline.images.hdr import tone_map
from pipeline.images.icc import colour_space, to_srgb
from pipeline.images.metadata import read_metadata
from pipeline.images.signatures import is_read, unread_format
from pipeline.reasons import Reason, ReasonCode

pillow_heif.register_heif_opener()

T = TypeVar("T")

Image = NDArray[np.uint8]
"""RGB, HWC, uint8 (``dladiff.image_values.Image``, without importing torch)."""

# A JPEG with more pictures behind the first, as several phones write it (MPO), opens as JPEG.
_OPENERS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "BMP", "TIFF", "GIF")
_ANIMATED_FORMATS = {"PNG", "WEBP", "AVIF", "TIFF", "GIF"}
_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706


@dataclass(frozen=True)
class PhotoLimits:
    """Sizes beyond which a photo is not decoded."""

    max_bytes: int = 64 * 1024**2
    max_pixels: int = 64_000_000
    """Above 178 million, Pillow's own limit against decompression bombs holds."""
    min_side_px: int = 32

    @classmethod
    def of(cls, operation: OperationSettings) -> Self:
        return cls(
            max_bytes=operation.max_photo_bytes,
            max_pixels=int(operation.max_photo_megapixels * 1e6),
            min_side_px=operation.min_photo_side_px,
        )


NO_LIMITS = PhotoLimits(max_bytes=2**33, max_pixels=2**31, min_side_px=1)
"""For a photo that has a row: some run's limits allowed it; today's must not matter."""


@dataclass(frozen=True)
class DecodedPhoto:
    """Pixels of a photo and what is worth knowing of its file."""

    image: Image
    """RGB, HWC, uint8, upright; where it is fully transparent, white."""
    colours: Colours = PLAIN
    """What the numbers mean."""
    alpha: NDArray[np.uint8] | None = None
    """HW, uint8; None: opaque."""
    is_grey: bool = False
    """The file holds one channel of colour."""
    copyright: str | None = None
    """Copyright notice of the file, one line; None: it has none."""
    notes: tuple[str, ...] = ()
    """What was changed or ignored, for the manifest; ``inspection.explain`` has the sentences."""

    def flattened(self) -> Self:
        """The same laid on white, for a format without transparency."""
        if self.alpha is None:
            return self
        share = self.alpha[..., None].astype(np.uint16)
        image = ((self.image * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
        return replace(self, image=image, alpha=None, notes=(*self.notes, "alpha_flattened"))


def decode_photo(
    content: bytes, limits: PhotoLimits, as_noted: Collection[str] | None = None
) -> DecodedPhoto:
    """Decodes one photo to upright pixels of 8 bits, in its own colours.

    The size in the header is checked before any pixel is decoded. Of an animation the first
    frame is taken. Metadata other than a copyright notice is dropped here. What every viewer shows
    is decoded, with a note: a JPEG without its end marker, one with bytes behind it.

    Args:
        as_noted: The notes of an earlier decoding that is to be repeated: earlier versions
            converted all colours to sRGB and knew nothing of HDR.

    Raises:
        PhotoError: The reason is one of the ``file`` class, see ``reasons``.
    """
    try:
        decoded = _with_picture(content, limits, lambda each: _decode(each, content, as_noted))
    except PhotoError as error:
        mended = with_end(content) if error.reason.code == ReasonCode.TRUNCATED else None
        if mended is None:
            raise
        decoded = _with_picture(mended, limits, lambda each: _decode(each, mended, as_noted))
        return replace(decoded, notes=("end_marker_missing", *decoded.notes))
    if has_trailing_bytes(content):
        return replace(decoded, notes=("trailing_bytes_dropped", *decoded.notes))
    return decoded


def read_size(content: bytes, limits: PhotoLimits) -> tuple[int, int]:
    """Width and height by the header, before EXIF orientation; no pixel is decoded.

    Raises:
        PhotoError: As ``decode_photo``, as far as the header tells.
    """
    return _with_picture(content, limits, lambda picture: picture.size)


def _with_picture(
    content: bytes, limits: PhotoLimits, action: Callable[[PillowImage.Image], T]
) -> T:
    """``action`` on the opened picture; whatever it raises is a trouble of the photo."""
    require_byte_limits(len(content), limits.max_bytes)
    if (name := unread_format(content)) is not None:
        raise PhotoError(_unread(name))
    with warnings.catch_warnings():
        # Pillow warns of much that we judge ourselves: large pictures, odd EXIF.
        warnings.simplefilter("ignore")
        try:
            with PillowImage.open(io.BytesIO(content), formats=_OPENERS) as picture:
                _require_no_preview(picture)
                _require_size_limits(picture.size, limits)
                return action(picture)
        except (PhotoError, MemoryError):
            raise
        except PillowImage.DecompressionBombError:
            raise PhotoError(
                Reason(ReasonCode.TOO_MANY_PIXELS, "more than a photo can have")
            ) from None
        except Exception as error:
            # Hostile bytes make the decoders raise almost anything (struct.error, KeyError,
            # zlib.error...); whatever it is, it is this photo's trouble.
            raise PhotoError(_reason_of(content, error)) from error


def require_byte_limits(num_bytes: int, max_bytes: int) -> None:
    """Refuses empty and oversized files.

    Raises:
        PhotoError: ``empty_file`` or ``too_many_bytes``.
    """
    if num_bytes == 0:
        raise PhotoError(Reason(ReasonCode.EMPTY_FILE, "the file has no content"))
    if num_bytes > max_bytes:
        raise PhotoError(too_many_bytes(num_bytes, max_bytes))


def too_many_bytes(num_bytes: int, max_bytes: int) -> Reason:
    """The reason for which a file is not read."""
    return Reason(ReasonCode.TOO_MANY_BYTES, f"{num_bytes} bytes, at most {max_bytes} are read")


def _require_size_limits(size: tuple[int, int], limits: PhotoLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        detail = f"{width} x {height}, at most {limits.max_pixels / 1e6:g} megapixels"
        raise PhotoError(Reason(ReasonCode.TOO_MANY_PIXELS, detail))
    if min(width, height) < limits.min_side_px:
        detail = f"{width} x {height}, each side needs {limits.min_side_px} pixels"
        raise PhotoError(Reason(ReasonCode.TOO_SMALL, detail))


def _require_no_preview(picture: PillowImage.Image) -> None:
    """Refuses camera raw files that look like TIFF: what opens of them is a small preview."""
    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    if _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE, 0) & 1:
        raise PhotoError(_unread("camera raw"))


def _unread(name: str) -> Reason:
    return Reason(ReasonCode.UNSUPPORTED_FORMAT, name)


def _decode(
    picture: PillowImage.Image, content: bytes, as_noted: Collection[str] | None
) -> DecodedPhoto:
    notes = []
    if picture.format in _ANIMATED_FORMATS and getattr(picture, "n_frames", 1) > 1:
        notes.append("first_frame")
        picture.seek(0)
    has_16_bits = any("16" in str(tile.args) for tile in getattr(picture, "tile", ()))
    picture.load()
    metadata = read_metadata(picture)
    if not metadata.readable:
        notes.append("exif_ignored")
    try:
        if picture.mode == "CMYK":
            rgb, colour_notes = flat_srgb(picture)
            decoded = DecodedPhoto(np.array(rgb), notes=tuple(colour_notes))
        else:
            decoded = _in_own_colours(picture, content, as_noted)
    except UnsupportedPictureError as error:
        raise PhotoError(Reason(ReasonCode.UNSUPPORTED_MODE, str(error))) from None
    if has_16_bits and "sixteen_bits_rounded" not in decoded.notes:
        notes.append("sixteen_bits_rounded")
    alpha = decoded.alpha
    return replace(
        decoded,
        image=_upright(decoded.image, metadata.orientation),
        alpha=None if alpha is None else _upright(alpha, metadata.orientation),
        copyright=metadata.copyright,
        notes=(*notes, *decoded.notes),
    )


def _in_own_colours(
    picture: PillowImage.Image, content: bytes, as_noted: Collection[str] | None
) -> DecodedPhoto:
    colours, notes = read_colours(picture, content)
    profile, alpha = picture.info.get("icc_profile"), None
    if picture.mode.startswith("I"):
        picture = grey_to_8_bits(picture)
        notes.append("sixteen_bits_rounded")
    is_grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        alpha = np.array(with_alpha.getchannel("A"))
        picture = with_alpha
    elif picture.mode not in ("1", "L", "P", "RGB", "RGBX", "YCbCr", "RGBA", "LA"):
        raise UnsupportedPictureError(f"pixels of kind {picture.mode!r}")
    if as_noted is not None and "converted_to_srgb" in as_noted:
        colours = Foreign(profile or b"")
    if isinstance(colours, Foreign):
        plain = picture.convert("L" if colour_space(colours.icc) == "GRAY" else "RGB")
        converted = to_srgb(plain, colours.icc)
        notes.append("colour_profile_ignored" if converted is None else "converted_to_srgb")
        picture, colours = converted or picture, PLAIN
    image = np.array(picture.convert("RGB"))
    if isinstance(colours, HighRange):
        if as_noted is None or "tone_mapped" in as_noted:
            image = tone_map(image, colours.transfer, colours.to_rec709)
            notes.append("tone_mapped")
        colours = PLAIN
    if alpha is None or alpha.min() == 255:
        return DecodedPhoto(image, colours, None, is_grey, notes=tuple(notes))
    image[alpha == 0] = 255  # nothing of the clean photo may hide there
    decoded = DecodedPhoto(image, colours, alpha, is_grey, notes=tuple(notes))
    return decoded.flattened() if as_noted and "alpha_flattened" in as_noted else decoded


def _upright(values: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == 1:
        return values
    return np.array(upright(PillowImage.fromarray(values), orientation))


def _reason_of(content: bytes, error: Exception) -> Reason:
    if not is_read(content):
        return Reason(ReasonCode.NOT_AN_IMAGE, "the content is of no supported image format")
    text = str(error).lower()
    if (
        isinstance(error, EOFError)
        or any(words in text for words in ("truncat", "end of file", "outside of file"))
        or _declared_bytes(content) > len(content)
    ):
        return Reason(ReasonCode.TRUNCATED, "the file ends too early")
    if isinstance(error, UnidentifiedImageError):
        return Reason(ReasonCode.CORRUPT, "the header cannot be read")
    return Reason(ReasonCode.CORRUPT, "the pixels cannot be decoded")


def _declared_bytes(content: bytes) -> int:
    """How long a WebP, HEIF or AVIF file says that it is, as far as its boxes can be followed."""
    if content.startswith(b"RIFF"):
        return int.from_bytes(content[4:8], "little") + 8
    position = 0
    if content[4:8] == b"ftyp":
        while position + 8 <= len(content):
            size = int.from_bytes(content[position : position + 4], "big")
            if size < 8:  # 0: to the end; 1: a 64-bit size, which no photo needs
                break
            position += size
    return position
