"""Protected pixels -> the kind of file that the photo came in, and back.

A JPEG keeps its own quantisation tables, subsampling and progressive flag; a WebP stays lossy or
lossless. HEIC, AVIF and lossy WebP do not tell their quality: the highest is taken at which the
clean photo fits into the bytes it came in. Knows no stores and no names of files but their ending.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import JpegImagePlugin, features

from pipeline.config import FORMAT_OF_ENDING, FileFormat
from pipeline.images.metadata import read_metadata
from pipeline.images.png import encode_png

DEFAULT_QUALITY = 95
"""Of a lossy file whose original was of another kind."""
_QUALITIES = range(40, 100, 5)
_FULL_CHROMA = 0
_HALF_CHROMA = 1


@dataclass(frozen=True)
class Coding:
    """How pixels become a file."""

    file_format: FileFormat
    quantisation_tables: tuple[tuple[int, ...], ...] | None = None
    """JPEG: 64 steps each, row by row; None: those of ``quality``."""
    subsampling: int = _FULL_CHROMA
    """JPEG: 0, 1, 2 for 4:4:4, 4:2:2, 4:2:0."""
    progressive: bool = False
    grey: bool = False
    """One channel; JPEG only."""
    lossless: bool = False
    """WebP only."""
    quality: int = DEFAULT_QUALITY
    """1 to 100, on the scale of the format's encoder."""

    @property
    def is_lossy(self) -> bool:
        """Whether the pixels read back may differ from those written."""
        return not (self.file_format == "PNG" or (self.file_format == "WEBP" and self.lossless))

    def encode(self, image: NDArray[np.uint8], copyright: str | None = None) -> bytes:
        """Encodes RGB pixels (HWC); the file holds them and, if given, a copyright notice.

        The same pixels give the same bytes with the same library.
        """
        if self.file_format == "PNG":
            return encode_png(image, copyright)
        picture = PillowImage.fromarray(np.ascontiguousarray(image))
        if self.grey:
            picture = picture.convert("L")
        buffer = io.BytesIO()
        picture.save(buffer, self.file_format, **self._options(), **_notice(copyright))
        return buffer.getvalue()

    def read_back(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels that a viewer sees of ``image`` once it is a file of this kind."""
        return decode_coded(self.encode(image)) if self.is_lossy else image

    def _options(self) -> dict[str, Any]:
        if self.file_format == "JPEG":
            chosen: dict[str, Any] = {"progressive": self.progressive, "optimize": True}
            if not self.grey:
                chosen["subsampling"] = self.subsampling
            if self.quantisation_tables is None:
                return chosen | {"quality": self.quality}
            return chosen | {"qtables": [[*table] for table in self.quantisation_tables]}
        if self.file_format == "WEBP":
            return {"lossless": self.lossless, "quality": self.quality, "method": 4, "exact": True}
        return {"quality": self.quality}


def decode_coded(content: bytes) -> NDArray[np.uint8]:
    """Reads back what ``Coding.encode`` wrote, as RGB.

    Raises:
        ValueError: If it is no whole 8-bit file of these kinds without transparency.
    """
    kinds = ("PNG", "JPEG", "WEBP", "HEIF", "AVIF")
    try:
        with PillowImage.open(io.BytesIO(content), formats=kinds) as picture:
            if picture.mode not in ("RGB", "L") or (picture.mode, picture.format) == ("L", "PNG"):
                raise ValueError(f"expected 8-bit RGB, got mode {picture.mode}")
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        raise ValueError(f"no readable image: {error}") from error


def can_write(file_format: FileFormat) -> bool:
    """Whether this installation has the format's encoder."""
    if file_format == "HEIF":
        return bool(pillow_heif.libheif_info()["HEIF"])
    if file_format in ("WEBP", "AVIF"):
        return bool(features.check(file_format.lower()))
    return True


def coding_for(
    content: bytes, pixels: NDArray[np.uint8], source_ending: str, output_ending: str
) -> tuple[Coding, list[str]]:
    """How a protected photo is written, and what the manifest should say about it.

    A key that keeps its original's ending keeps its content's format too, whatever the ending
    claims; another ending says itself which format is wanted.

    Args:
        content: The original file, decodable.
        pixels: Its pixels, RGB, upright.
        source_ending: Of the original's name, e.g. ``jpg``; may be empty.
        output_ending: Of the key below OUTPUT.
    """
    with PillowImage.open(io.BytesIO(content)) as picture:
        held: Any = "JPEG" if picture.format == "MPO" else picture.format
        wanted: FileFormat | None = FORMAT_OF_ENDING.get(output_ending.lower())
        if source_ending.lower() == output_ending.lower() and held in FORMAT_OF_ENDING.values():
            wanted = held
        chosen = wanted or "PNG"
        notes = []
        if not can_write(chosen):
            chosen = "JPEG"
        if chosen != held:
            notes.append(f"written_as_{chosen.lower()}")
            return Coding(chosen), notes
        if chosen == "JPEG":
            return _as_this_jpeg(picture), notes
    if chosen == "PNG":
        return Coding("PNG"), notes
    if chosen == "WEBP" and _is_lossless_webp(content):
        return Coding("WEBP", lossless=True), notes
    return _as_large_as(chosen, pixels, len(content)), notes


def _as_this_jpeg(picture: Any) -> Coding:
    turned = read_metadata(picture).orientation in (5, 6, 7, 8)
    tables = [tuple(table) for _, table in sorted(picture.quantization.items())]
    grey = picture.mode == "L"
    if turned:
        tables = [_transposed(table) for table in tables]
    # Colours that were coded without chroma planes (CMYK) have no subsampling to keep.
    sampling = JpegImagePlugin.get_sampling(picture) if picture.mode == "RGB" else _FULL_CHROMA
    return Coding(
        "JPEG",
        quantisation_tables=tuple(tables[:1] if grey else tables[:3]),
        subsampling=_HALF_CHROMA if sampling == -1 else sampling,
        progressive=bool(picture.info.get("progressive")),
        grey=grey,
    )


def _transposed(table: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(step) for step in np.reshape(table, (8, 8)).T.reshape(-1))


def _as_large_as(file_format: FileFormat, pixels: NDArray[np.uint8], num_bytes: int) -> Coding:
    """The best quality at which the clean pixels take at most as many bytes as they came in."""
    low, high = 0, len(_QUALITIES) - 1
    while low < high:
        middle = (low + high + 1) // 2
        coding = Coding(file_format, quality=_QUALITIES[middle])
        if len(coding.encode(pixels)) <= num_bytes:
            low = middle
        else:
            high = middle - 1
    return Coding(file_format, quality=_QUALITIES[low])


def _is_lossless_webp(content: bytes) -> bool:
    """Whether the first image chunk of a WebP file is a lossless one (RFC 9649)."""
    position = 12
    while position + 8 <= len(content):
        kind = content[position : position + 4]
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        if kind == b"ANMF":  # a frame of an animation: its chunks follow 16 bytes of its own
            position += 24
            continue
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False


def _notice(copyright: str | None) -> dict[str, Any]:
    if copyright is None:
        return {}
    exif = PillowImage.Exif()
    exif[0x8298] = copyright
    return {"exif": exif.tobytes()}
