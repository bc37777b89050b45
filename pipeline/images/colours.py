"""What a file says of its colours, in whatever way, and how its protected file says the same.

Numbers stay as they are and the statement goes along, so that a viewer shows both files alike, also
one that does not know the statement. Only what cannot be kept is converted to sRGB.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pipeline.images.hdr import HLG, PQ
from pipeline.images.icc import Chromaticity, cleaned, colour_space, is_alike, is_srgb, rgb_profile

_D65: Chromaticity = (0.3127, 0.3290)
_REC709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_PRIMARIES: Mapping[int, tuple[Chromaticity, Chromaticity, Chromaticity]] = {
    1: _REC709,
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""Red, green and blue by their number in ITU-T H.273, table 2; all of white D65."""
_GAMMAS: Mapping[int, float | None] = {
    1: None, 2: None, 6: None, 13: None, 14: None, 15: None, 4: 2.2, 5: 2.8, 8: 1.0,
}  # fmt: skip
"""Exponents by H.273, table 3; None: the curve of sRGB, by which browsers show all of these."""
_ADOBE_RGB = (((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), 563 / 256)
_INTEROP_ADOBE = "R03"
_EXIF, _INTEROP, _COLOR_SPACE = 0x8769, 0xA005, 0xA001


@dataclass(frozen=True)
class Colours:
    """How numbers become colours; all empty: as sRGB, which most files leave unsaid."""

    icc: bytes | None = None
    """A profile for formats that can hold none of the rest; nothing in it is about a device."""
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """``cICP``, or ``gAMA`` and ``cHRM``, as they stood in a PNG."""
    nclx: tuple[int, int] | None = None
    """Primaries and transfer of ITU-T H.273, as they stood in a HEIF."""
    adobe_exif: bool = False
    """Only Exif says Adobe RGB, which some viewers follow and others do not."""

    @property
    def is_plain(self) -> bool:
        return self == PLAIN


PLAIN = Colours()


@dataclass(frozen=True)
class Foreign:
    """Colours far from sRGB, by which faces would not be found: the photo has to be converted."""

    icc: bytes


@dataclass(frozen=True)
class HighRange:
    """The photo is HDR and has to be tone-mapped."""

    transfer: int
    to_rec709: NDArray[np.float64]


def read_colours(
    picture: PillowImage.Image, content: bytes
) -> tuple[Colours | Foreign | HighRange, list[str]]:
    """What an opened file says of its colours, and notes on what could not be followed.

    Where a file says it twice, what browsers follow holds: in a PNG ``cICP``, ``iCCP``, ``sRGB``,
    ``gAMA`` with ``cHRM``; else an ICC profile, then nclx, then Exif.

    Args:
        picture: Opened by Pillow.
        content: The whole file.
    """
    chunks = _png_chunks(content) if picture.format == "PNG" else {}
    if b"cICP" in chunks:
        primaries, transfer = chunks[b"cICP"][:2]
        return _by_numbers(primaries, transfer, ((b"cICP", chunks[b"cICP"]),), None)
    profile = picture.info.get("icc_profile")
    if profile:
        return _by_profile(profile, picture.mode)
    if b"sRGB" in chunks:
        return Colours(), []
    if b"gAMA" in chunks or b"cHRM" in chunks:
        return _by_gamma(chunks), []
    numbers = _nclx(picture, content)
    if numbers is not None:
        return _by_numbers(*numbers, (), numbers)
    if _says_adobe(picture):
        (red, green, blue), gamma = _ADOBE_RGB
        return Colours(rgb_profile((red, green, blue), _D65, gamma), adobe_exif=True), []
    return Colours(), []


def adobe_exif() -> dict[int, Any]:
    """The Exif that says Adobe RGB and nothing else (DCF 2.0, 'optional colour space')."""
    interoperability = {1: _INTEROP_ADOBE, 2: b"0100"}
    return {_COLOR_SPACE: 0xFFFF, _INTEROP: interoperability}


def _by_profile(profile: bytes, mode: str) -> tuple[Colours | Foreign, list[str]]:
    space = colour_space(profile)
    grey = mode in ("1", "L", "LA", "I") or mode.startswith("I;")
    if space not in ("RGB", "GRAY") or (space == "GRAY" and not grey):
        return Colours(), ["colour_profile_ignored"]
    if is_srgb(profile):
        return Colours(), []
    kept = cleaned(profile) if is_alike(profile) else None
    return Foreign(profile) if kept is None else Colours(kept), []


def _by_numbers(
    primaries: int,
    transfer: int,
    png_chunks: tuple[tuple[bytes, bytes], ...],
    nclx: tuple[int, int] | None,
) -> tuple[Colours | Foreign | HighRange, list[str]]:
    if transfer in (PQ, HLG):
        points = _PRIMARIES.get(primaries, _PRIMARIES[9])
        return HighRange(transfer, _to_rec709(points)), []
    if primaries == 2:  # not specified
        primaries = 1
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        return Colours(png_chunks=png_chunks, nclx=nclx), ["colour_numbers_unknown"]
    gamma = _GAMMAS[transfer]
    if primaries == 1 and gamma is None:
        return Colours(), []
    profile = rgb_profile(_PRIMARIES[primaries], _D65, gamma)
    return _kept_if_alike(Colours(profile, png_chunks, nclx)), []


def _kept_if_alike(colours: Colours) -> Colours | Foreign:
    assert colours.icc is not None, "a profile was made"
    return colours if is_alike(colours.icc) else Foreign(colours.icc)


def _by_gamma(chunks: Mapping[bytes, bytes]) -> Colours | Foreign:
    kept = tuple((kind, chunks[kind]) for kind in (b"gAMA", b"cHRM") if kind in chunks)
    numbers = [
        value / 100_000 for _, data in kept for value in struct.unpack(f">{len(data) // 4}I", data)
    ]
    gamma = 1 / numbers.pop(0) if b"gAMA" in chunks and numbers[0] > 0 else None
    white, points = _D65, _REC709
    if len(numbers) == 8 and all(0 < y <= 1 for y in numbers[1::2]):
        (white, *rest) = zip(numbers[::2], numbers[1::2], strict=True)
        points = (rest[0], rest[1], rest[2])
    return _kept_if_alike(Colours(rgb_profile(points, white, gamma), kept))


def _png_chunks(content: bytes) -> dict[bytes, bytes]:
    """The chunks about colour that stand before a PNG's pixels."""
    found, position = dict[bytes, bytes](), 8
    sizes = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}
    while position + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        if kind == b"IDAT":
            break
        if sizes.get(kind) == size:
            found.setdefault(kind, content[position + 8 : position + 8 + size])
        position += 12 + size
    return found


def _nclx(picture: PillowImage.Image, content: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of a HEIF or AVIF; None: it names none."""
    if picture.format == "HEIF":
        profile = picture.info.get("nclx_profile")
        if not profile:
            return None
        return int(profile["color_primaries"]), int(profile["transfer_characteristics"])
    if picture.format == "AVIF":
        # Pillow does not tell; the property of the first item is the photo's.
        place = content.find(b"colrnclx", 0, 65536)
        if place >= 0:
            primaries, transfer = struct.unpack(">HH", content[place + 8 : place + 12])
            return primaries, transfer
    return None


def _says_adobe(picture: PillowImage.Image) -> bool:
    try:
        exif = picture.getexif()
        if exif.get_ifd(_EXIF).get(_COLOR_SPACE) == 1:
            return False
        interoperability = exif.get_ifd(_INTEROP) or exif.get_ifd(_EXIF).get(_INTEROP)
        index = interoperability.get(1) if isinstance(interoperability, dict) else None
    except Exception:  # damaged metadata make the parsers raise almost anything
        return False
    if isinstance(index, bytes):
        index = index.decode("ascii", "replace")
    return isinstance(index, str) and index.rstrip("\0 ") == _INTEROP_ADOBE


def _to_rec709(
    primaries: tuple[Chromaticity, Chromaticity, Chromaticity],
) -> NDArray[np.float64]:
    """From linear values of these primaries to linear ones of sRGB's; both are of white D65."""

    def to_xyz(points: tuple[Chromaticity, ...]) -> NDArray[np.float64]:
        columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in points]).T
        x, y = _D65
        white = np.array([x / y, 1.0, (1 - x - y) / y])
        return np.asarray(columns * np.linalg.solve(columns, white))

    return np.asarray(np.linalg.solve(to_xyz(_REC709), to_xyz(primaries)))
