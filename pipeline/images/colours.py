"""Any colour mode of an image file -> 8-bit sRGB without transparency.

Knows modes, bit depths and ICC profiles. A picture without a profile is taken as sRGB, as
browsers do.
"""

import io

import numpy as np
from PIL import Image, ImageCms

from pipeline.errors import PhotoError
from pipeline.reasons import Reason, ReasonCode

_SRGB = ImageCms.createProfile("sRGB")
_DIRECT_MODES = {"RGB", "L", "CMYK"}
"""Modes that a profile can describe as they are."""
_CONVERTIBLE_MODES = _DIRECT_MODES | {"1", "P", "YCbCr", "RGBX"}


def to_srgb(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """Converts a loaded picture to mode ``RGB`` in sRGB.

    16 bits per value are rounded to 8. Transparency is flattened on white: the photo is served
    on its own, white is what most pages show behind it, and an output with the old transparency
    would show the untouched colours that a viewer may reveal below it.

    Returns:
        The converted picture, and notes on what was changed or ignored.

    Raises:
        PhotoError: ``unsupported_mode`` for values whose range the file does not tell.
    """
    notes: list[str] = []
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        picture = _grey_to_8_bits(picture)
        notes.append("sixteen_bits_rounded")
    alpha = None
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        picture = with_alpha.convert("RGB")
    elif picture.mode not in _CONVERTIBLE_MODES:
        raise PhotoError(Reason(ReasonCode.UNSUPPORTED_MODE, f"pixels of kind {picture.mode!r}"))
    elif picture.mode not in _DIRECT_MODES:
        picture = picture.convert("RGB")
    picture = _apply_profile(picture, profile, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", picture.size, (255, 255, 255))
        picture = Image.composite(picture, white, alpha)
        notes.append("alpha_flattened")
    return picture, notes


def _grey_to_8_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own convert("L") clips 16-bit values instead of scaling them.
    values = np.asarray(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise PhotoError(Reason(ReasonCode.UNSUPPORTED_MODE, "grey values beyond 16 bits"))
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _apply_profile(picture: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
                return picture.convert("RGB")  # a trip through lcms would only add rounding
            converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("colour_profile_ignored")
        else:
            assert converted is not None  # None only in place
            notes.append("converted_to_srgb")
            return converted
    return picture.convert("RGB")
