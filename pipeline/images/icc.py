"""ICC profiles: is it sRGB, what of it is colour, and one made of primaries and a curve.

A profile may name a person's monitor or camera, so only the tags that turn numbers into colours are
kept of one. LittleCMS reads and judges profiles; nothing here transforms pixels of photos.
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_SAME_LEVELS = 2
"""Profiles that differ by at most so many 8-bit levels are the same to any viewer."""
_ALIKE_LEVELS = 32
"""On average over all colours: Display P3 and Adobe RGB take 11, ProPhoto RGB 26, linear light 45,
exchanged channels 60."""

_COLOUR_TAGS = frozenset(
    (b"wtpt", b"bkpt", b"chad", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC",
     b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"D2B0", b"D2B1", b"D2B2", b"cicp")
)  # fmt: skip
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])

Chromaticity = tuple[float, float]
"""CIE 1931 x and y."""


def colour_space(profile: bytes) -> str | None:
    """``RGB``, ``GRAY``, ``CMYK``...: what numbers a profile is about; None: it is damaged."""
    try:
        return _opened(profile).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def is_srgb(profile: bytes) -> bool:
    """Whether a profile says what no profile says, by what it does and not by its name."""
    change = _change(profile)
    return change is not None and bool(change.max() <= _SAME_LEVELS)


def is_alike(profile: bytes) -> bool:
    """Whether a photo still looks like itself to who ignores the profile: a wide gamut does."""
    change = _change(profile)
    return change is not None and bool(change.mean() <= _ALIKE_LEVELS)


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture of mode ``RGB`` or ``L`` in sRGB; None: the profile is not about such a one."""
    try:
        return ImageCms.profileToProfile(picture, _opened(profile), _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def cleaned(profile: bytes) -> bytes | None:
    """The profile without descriptions, devices, dates and makers; None: colours would change."""
    tags = {kind: data for kind, data in _tags(profile).items() if kind in _COLOUR_TAGS}
    version, kinds, pcs = profile[8:12], profile[12:20], profile[20:24]
    clean = _written(version, kinds, pcs, tags)
    samples = _samples(colour_space(profile))
    before, after = to_srgb(samples, profile), to_srgb(samples, clean)
    if before is None or after is None:
        return None
    return clean if np.array_equal(np.asarray(before), np.asarray(after)) else None


def rgb_profile(
    primaries: Sequence[Chromaticity], white: Chromaticity, gamma: float | None
) -> bytes:
    """A profile of these primaries (red, green, blue).

    Args:
        gamma: Exponent of the curve; None: the curve of sRGB (IEC 61966-2-1).
    """
    adapted = _adaptation(_xyz(white))
    colorants = np.array([_xyz(each) for each in primaries]).T
    colorants = adapted @ (colorants * np.linalg.solve(colorants, _xyz(white)))
    if gamma is None:
        curve = _parametric(3, [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    else:
        curve = _parametric(0, [gamma])
    tags = {
        b"wtpt": b"XYZ " + bytes(4) + _fixed(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(adapted.reshape(-1)),
    }
    for letter, colorant in zip((b"r", b"g", b"b"), colorants.T, strict=True):
        tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(colorant)
        tags[letter + b"TRC"] = curve
    return _written(b"\x04\x30\x00\x00", b"mntrRGB ", b"XYZ ", tags)


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _samples(space: str | None) -> Image.Image:
    """Values from all over an RGB cube, or a ramp of grey."""
    if space == "GRAY":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    axis = np.linspace(0, 255, 18).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(axis, axis, axis), axis=-1)
    return Image.fromarray(np.ascontiguousarray(cube.reshape(18, -1, 3)))


def _change(profile: bytes) -> NDArray[np.int_] | None:
    """What colour management changes of values, in 8-bit levels; None: nothing can be said."""
    samples = _samples(colour_space(profile))
    shown = to_srgb(samples, profile)
    if shown is None:
        return None
    plain, managed = (np.asarray(each).astype(int) for each in (samples.convert("RGB"), shown))
    return np.asarray(np.abs(plain - managed))


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Tags by their signature; those that lie outside the profile are left out."""
    found = {}
    (number,) = struct.unpack(">I", profile[128:132].ljust(4, b"\0"))
    for place in range(132, 132 + 12 * min(number, 200), 12):
        kind, offset, size = struct.unpack(">4sII", profile[place : place + 12].ljust(12, b"\0"))
        if offset + size <= len(profile):
            found[kind] = profile[offset : offset + size]
    return found


def _written(version: bytes, kinds: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile file of these tags (ICC.1:2022, 7.2 and 7.3), with no maker and no real date."""
    description, notice = _texts(version, "Colours of the original", "None")
    tags = {b"desc": description, b"cprt": notice} | tags
    table, body = struct.pack(">I", len(tags)), b""
    places: dict[bytes, int] = {}
    start = 128 + 4 + 12 * len(tags)
    for kind, data in sorted(tags.items()):
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", kind, places[data], len(data))
    header = struct.pack(
        ">I4s4s8s4s6H4s", start + len(body), b"", version, kinds, pcs, 2000, 1, 1, 0, 0, 0, b"acsp"
    )
    header += bytes(28) + _fixed(_D50)
    return header.ljust(128, b"\0") + table + body


def _texts(version: bytes, description: str, notice: str) -> tuple[bytes, bytes]:
    """The tags ``desc`` and ``cprt``, which every profile must have, as its version writes them."""
    if version[0] >= 4:
        return _localised(description), _localised(notice)
    text = description.encode() + b"\0"
    # The ASCII form of a description; its Unicode and script forms are empty.
    described = struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    return described, b"text" + bytes(4) + notice.encode() + b"\0"


def _localised(words: str) -> bytes:
    text = words.encode("utf-16-be")
    return struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(text), 28) + text


def _parametric(kind: int, values: Sequence[float]) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(values)


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(chromaticity: Chromaticity) -> NDArray[np.float64]:
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """From a white to D50, by Bradford (ICC.1:2022, annex E)."""
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    return np.asarray(np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD)
