"""Protected pixels -> the kind of file that the photo came in, and back.

A JPEG keeps its own quantisation tables, subsampling and progressive flag; a WebP stays lossy or
lossless. HEIC, AVIF and lossy WebP do not tell their quality: the highest is taken at which the
clean photo fits into the bytes it came in. Knows no stores and no names of files but their ending.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import JpegImagePlugin, features

from pipeline.config import FORMAT_OF_ENDING, FileFormat
from pipeline.images.colours import PLAIN, Colours, adobe_exif
from pipeline.images.files import DecodedPhoto
from pipeline.images.metadata import read_metadata
from pipeline.images.png import png_options

DEFAULT_QUALITY = 95
"""Quality of a lossy file whose original was of another kind."""
_QUALITIES = range(40, 100, 5)
_SUM_OF_LUMA_STEPS = 3688
"""Sum of the table that libjpeg scales by quality (ITU-T T.81, annex K), at quality 50."""
_FULL_CHROMA = 0
_HALF_CHROMA = 1
_COPYRIGHT, _EXIF_FOLDER = 0x8298, 0x8769


@dataclass(frozen=True)
class Coding:
    """How pixels become a file."""

    file_format: FileFormat
    quantisation_tables: tuple[tuple[int, ...], ...] | None = None
    """JPEG: 64 steps each, row by row; None: those of ``quality``."""
    subsampling: int = _FULL_CHROMA
    """JPEG: 0, 1, 2 for 4:4:4, 4:2:2, 4:2:0."""
    progressive: bool = False
    lossless: bool = False
    """WebP only."""
    quality: int = DEFAULT_QUALITY
    """1 to 100, on the scale of the format's encoder."""
    grey: bool = False
    """One channel carries the change; WebP repeats it."""
    colours: Colours = PLAIN
    alpha: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """Transparency of the photo, HW; None: opaque."""

    @property
    def changes_pixels(self) -> bool:
        """Whether the pixels read back may differ from those written."""
        return self.grey or not self.is_lossless

    @property
    def is_lossless(self) -> bool:
        """Whether the file keeps each value that it is given."""
        return self.file_format == "PNG" or (self.file_format == "WEBP" and self.lossless)

    @property
    def about_jpeg_quality(self) -> int | None:
        """Quality of the JPEG, on libjpeg's scale, that loses as much; None: nothing is lost."""
        if self.is_lossless:
            return None
        steps = self.luma_steps
        if steps is None:
            return self.quality
        # libjpeg scales its table by this factor of a quality above 50, and by 50 / quality below.
        factor = sum(steps) / _SUM_OF_LUMA_STEPS
        return min(100, max(1, round(100 - 50 * factor if factor <= 1 else 50 / factor)))

    @property
    def luma_steps(self) -> tuple[int, ...] | None:
        """64 quantisation steps of a JPEG, row by row, where its original had them."""
        return None if self.quantisation_tables is None else self.quantisation_tables[0]

    def encode(self, image: NDArray[np.uint8], copyright: str | None = None) -> bytes:
        """Encodes RGB pixels (HWC) of the photo's size.

        The file holds them, the photo's transparency, what its colours mean and, if given, a
        copyright notice. The same pixels give the same bytes with the same library.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected uint8 HWC RGB, got {image.dtype} {image.shape}")
        picture = PillowImage.fromarray(np.ascontiguousarray(image))
        if self.grey:
            picture = picture.convert("L")
        if self.alpha is not None:
            picture.putalpha(PillowImage.fromarray(self.alpha))
            if self.file_format != "PNG":
                picture = picture.convert("RGBA")
        buffer = io.BytesIO()
        options = self._colour_options() | self._metadata(copyright)
        picture.save(buffer, self.file_format, **self._options(), **options)
        return buffer.getvalue()

    def read_back(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels that a viewer sees of ``image`` once it is a file of this kind."""
        return decode_coded(self.encode(image)) if self.changes_pixels else image

    def _options(self) -> dict[str, Any]:
        if self.file_format == "PNG":
            return {"compress_level": 4}
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

    def _colour_options(self) -> dict[str, Any]:
        """What says the colours: the format's own way where they came in it, else a profile."""
        if self.file_format == "PNG" or self.colours.is_plain or self.colours.adobe_exif:
            return {}
        if self.file_format == "HEIF" and self.colours.nclx is not None:
            primaries, transfer = self.colours.nclx
            return {"color_primaries": primaries, "transfer_characteristics": transfer}
        return {} if self.colours.icc is None else {"icc_profile": self.colours.icc}

    def _metadata(self, copyright: str | None) -> dict[str, Any]:
        tags: dict[int, Any] = {}
        if self.colours.adobe_exif:
            tags[_EXIF_FOLDER] = adobe_exif()
        if self.file_format != "PNG" and copyright is not None:
            tags[_COPYRIGHT] = copyright
        options = {}
        if tags:
            exif = PillowImage.Exif()
            exif.update(tags)
            options["exif"] = exif.tobytes()
        if self.file_format == "PNG":
            return options | png_options(self.colours, copyright)
        return options


def decode_coded(content: bytes) -> NDArray[np.uint8]:
    """Reads back what ``Coding.encode`` wrote, as RGB, without its transparency.

    Raises:
        ValueError: If it is no whole 8-bit file of these kinds.
    """
    kinds = ("PNG", "JPEG", "WEBP", "HEIF", "AVIF")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            with PillowImage.open(io.BytesIO(content), formats=kinds) as picture:
                if picture.mode not in ("RGB", "RGBA", "L", "LA"):
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


@dataclass(frozen=True)
class PreparedPhoto:
    """What the method gets of a photo, and how its result becomes a file."""

    decoded: DecodedPhoto
    """Laid on white where the file to be written knows no transparency."""
    coding: Coding
    notes: tuple[str, ...] = ()
    """What the manifest should say about the file."""


def prepare(
    content: bytes,
    decoded: DecodedPhoto,
    source_ending: str,
    output_ending: str,
    content_decides: bool = True,
) -> PreparedPhoto:
    """How a protected photo is written.

    The ending of its key says the format. Only where ``output.format`` is ``same`` a key that keeps
    its original's ending keeps the format of its content too, whatever the ending claims.

    Args:
        content: The original file, decodable.
        decoded: What ``decode_photo`` made of it.
        source_ending: Of the original's name, e.g. ``jpg``; may be empty.
        output_ending: Of the key below OUTPUT.
        content_decides: Whether ``output.format`` is ``same``.
    """
    with PillowImage.open(io.BytesIO(content)) as picture:
        held: Any = "JPEG" if picture.format == "MPO" else picture.format
        wanted: FileFormat | None = FORMAT_OF_ENDING.get(output_ending.lower())
        keeps_ending = source_ending.lower() == output_ending.lower()
        if content_decides and keeps_ending and held in FORMAT_OF_ENDING.values():
            wanted = held
        chosen = wanted or "PNG"
        if not can_write(chosen):
            chosen = "JPEG"
        coding = Coding(chosen)
        if chosen == held == "JPEG":
            coding = _as_this_jpeg(picture)
    if chosen == "JPEG":
        decoded = decoded.flattened()
    coding = replace(
        coding,
        grey=decoded.is_grey and _has_grey(chosen, decoded.colours),
        colours=decoded.colours,
        alpha=decoded.alpha,
    )
    if chosen != held:
        return PreparedPhoto(decoded, coding, (f"written_as_{chosen.lower()}",))
    if chosen == "WEBP" and _is_lossless_webp(content):
        coding = replace(coding, lossless=True)
    elif chosen not in ("PNG", "JPEG"):
        coding = _as_large_as(coding, decoded.image, len(content))
    return PreparedPhoto(decoded, coding)


def _has_grey(file_format: FileFormat, colours: Colours) -> bool:
    """Whether one channel can say these colours: a profile made here is one of RGB."""
    if colours.icc is None or colours.adobe_exif:
        return True
    if colours.png_chunks:
        return file_format == "PNG"
    return file_format in ("PNG", "JPEG")


def _as_this_jpeg(picture: Any) -> Coding:
    turned = read_metadata(picture).orientation in (5, 6, 7, 8)
    tables = [tuple(table) for _, table in sorted(picture.quantization.items())]
    if turned:
        tables = [_transposed(table) for table in tables]
    # Colours that were coded without chroma planes (CMYK) have no subsampling to keep.
    sampling = JpegImagePlugin.get_sampling(picture) if picture.mode == "RGB" else _FULL_CHROMA
    return Coding(
        "JPEG",
        quantisation_tables=tuple(tables[:1] if picture.mode == "L" else tables[:3]),
        subsampling=_HALF_CHROMA if sampling == -1 else sampling,
        progressive=bool(picture.info.get("progressive")),
    )


def _transposed(table: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(step) for step in np.reshape(table, (8, 8)).T.reshape(-1))


def _as_large_as(coding: Coding, pixels: NDArray[np.uint8], num_bytes: int) -> Coding:
    """The best quality at which the clean pixels take at most as many bytes as they came in."""
    low, high = 0, len(_QUALITIES) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if len(replace(coding, quality=_QUALITIES[middle]).encode(pixels)) <= num_bytes:
            low = middle
        else:
            high = middle - 1
    return replace(coding, quality=_QUALITIES[low])


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
