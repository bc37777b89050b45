"""What a PNG says beside its pixels. Knows no other format."""

from typing import Any

from PIL import PngImagePlugin

from pipeline.images.colours import Colours


def png_options(colours: Colours, copyright: str | None = None) -> dict[str, Any]:
    """Options of Pillow's encoder: what the colours are, and a notice; no other metadata."""
    chunks = PngImagePlugin.PngInfo()
    for kind, data in colours.png_chunks:
        chunks.add(kind, data)
    if colours.is_plain:
        chunks.add(b"sRGB", b"\x00")  # rendering intent: perceptual
    if copyright is not None:
        chunks.add_itxt("Copyright", copyright)
    has_own_way = bool(colours.png_chunks) or colours.adobe_exif
    profile = None if has_own_way else colours.icc
    return {"pnginfo": chunks} | ({} if profile is None else {"icc_profile": profile})
