"""Any picture that Pillow opened -> upright, 8 bits a value, sRGB, without transparency.

Knows modes, bit depths, ICC profiles and orientations. A picture without a profile is taken as
sRGB, as browsers do. The library and the pipeline read pixels by these same functions. No torch.
"""

import io

import numpy as np
from PIL import Image, ImageCms

ORIENTATION_TAG = 0x0112
"""The tag of EXIF that says how the camera was held, 1 to 8."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each orientation upright; of 1, nothing."""


class UnsupportedPictureError(ValueError):
    """The picture holds values whose range its file does not tell."""


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
        UnsupportedPictureError: For values whose range the file does not tell.
    """
    notes: list[str] = []
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        picture = grey_to_8_bits(picture)
        notes.append("sixteen_bits_rounded")
    alpha = None
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        picture = with_alpha.convert("RGB")
    elif picture.mode not in _CONVERTIBLE_MODES:
        raise UnsupportedPictureError(f"pixels of kind {picture.mode!r}")
    elif picture.mode not in _DIRECT_MODES:
        picture = picture.convert("RGB")
    picture = _apply_profile(picture, profile, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", picture.size, (255, 255, 255))
        picture = Image.composite(picture, white, alpha)
        notes.append("alpha_flattened")
    return picture, notes


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Turns and flips a picture as its EXIF orientation says."""
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def grey_to_8_bits(picture: Image.Image) -> Image.Image:
    """Rounds grey values of 16 bits to 8.

    Raises:
        UnsupportedPictureError: For values beyond 16 bits.
    """
    # Pillow's own convert("L") clips 16-bit values instead of scaling them.
    values = np.asarray(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise UnsupportedPictureError("grey values beyond 16 bits")
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
