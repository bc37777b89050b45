"""A protected file looks as its original does on a colour-managed screen, whatever says how.

What is seen comes from LittleCMS and from profiles that this project did not make.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, xyz2lab

from pipeline.images.coding import PreparedPhoto, decode_coded, prepare
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.images.icc import cleaned, is_srgb, rgb_profile
from tests import sample_photos as sample

PHOTO = sample.photo_image(96, 96)
ALPHA = np.tile(np.linspace(255, 90, 96).astype(np.uint8), (96, 1))
P3_COLORANTS = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
"""Of Display P3, adapted to D50, as Apple's profile has them."""


def lcms_srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3() -> bytes:
    """LittleCMS's sRGB profile, its name and all, with other colorants: not judged by its name."""
    profile = bytearray(lcms_srgb())
    for place in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12):
        kind, offset = struct.unpack(">4sI", profile[place : place + 8])
        if kind in P3_COLORANTS:
            fixed = [round(65536 * value) for value in P3_COLORANTS[kind]]
            profile[offset + 8 : offset + 20] = struct.pack(">3i", *fixed)
    return bytes(profile)


def grey_gamma_profile() -> bytes:
    """A grey profile of gamma 2.8, written out by hand."""
    tags = [
        (b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)),
        (b"kTRC", b"curv" + bytes(4) + struct.pack(">IHH", 1, round(2.8 * 256), 0)),
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(81)),
        (b"cprt", b"text" + bytes(4) + b"none"),
    ]
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for kind, data in tags:
        table += struct.pack(">4sII", kind, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4s4s", start + len(body), b"lcms", b"\2\x20\0\0") + b"mntrGRAYXYZ "
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks behind its header."""
    more = b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return png[:33] + more + png[33:]


def p3_by_gamma() -> tuple[tuple[bytes, bytes], ...]:
    points = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    return (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *points))


def png_of_16_bits(image: NDArray[np.uint8]) -> bytes:
    rows = (image.astype(">u2") * 257).reshape(len(image), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def avif_of_p3() -> bytes:
    content = sample.encode(PHOTO, "AVIF", quality=95)
    return content.replace(b"colrnclx\x00\x01", b"colrnclx\x00\x0c")


def cmyk_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


RGBA = np.dstack([PHOTO, ALPHA])
FILES: dict[str, Callable[[], bytes]] = {
    "jpeg, nothing said": lambda: sample.encode(PHOTO, "JPEG", quality=95),
    "jpeg, profile of sRGB": lambda: sample.encode(PHOTO, "JPEG", icc_profile=lcms_srgb()),
    "jpeg, profile of P3": lambda: sample.encode(PHOTO, "JPEG", icc_profile=display_p3()),
    "jpeg, far profile": lambda: sample.encode(PHOTO, "JPEG", icc_profile=sample.swapped_profile()),
    "jpeg, grey": lambda: sample.encode(PHOTO[..., 0], "JPEG"),
    "jpeg, grey by gamma": lambda: sample.encode(
        PHOTO[..., 0], "JPEG", icc_profile=grey_gamma_profile()
    ),
    "jpeg, cmyk": cmyk_jpeg,
    "png, nothing said": lambda: sample.encode(PHOTO, "PNG"),
    "png, profile of P3": lambda: sample.encode(PHOTO, "PNG", icc_profile=display_p3()),
    "png, gAMA and cHRM": lambda: with_chunks(sample.encode(PHOTO, "PNG"), *p3_by_gamma()),
    "png, gAMA under sRGB": lambda: with_chunks(
        sample.encode(PHOTO, "PNG"), (b"sRGB", b"\0"), *p3_by_gamma()
    ),
    "png, cICP of P3": lambda: with_chunks(
        sample.encode(PHOTO, "PNG"), (b"cICP", bytes([12, 13, 0, 1]))
    ),
    "png, grey": lambda: sample.encode(PHOTO[..., 0], "PNG"),
    "png, grey by gamma": lambda: sample.encode(
        PHOTO[..., 0], "PNG", icc_profile=grey_gamma_profile()
    ),
    "png, grey and transparent": lambda: sample.encode(RGBA[..., [0, 3]], "PNG"),
    "png, palette": lambda: sample.palette_png(PHOTO),
    "png, 16 bits": lambda: png_of_16_bits(PHOTO),
    "png, 16 bits of grey": lambda: sample.grey_16_bit_png(PHOTO),
    "png, transparent": lambda: sample.encode(RGBA, "PNG"),
    "webp": lambda: sample.encode(PHOTO, "WEBP", quality=95),
    "webp, profile of P3": lambda: sample.encode(
        PHOTO, "WEBP", quality=95, icc_profile=display_p3()
    ),
    "webp, lossless and transparent": lambda: sample.encode(RGBA, "WEBP", lossless=True),
    "webp, transparent": lambda: sample.encode(RGBA, "WEBP", quality=95),
    "heif": lambda: sample.encode(PHOTO, "HEIF", quality=95),
    "heif, nclx of P3": lambda: sample.encode(
        PHOTO, "HEIF", quality=95, color_primaries=12, transfer_characteristics=13
    ),
    "heif, profile of P3": lambda: sample.encode(
        PHOTO, "HEIF", quality=95, icc_profile=display_p3()
    ),
    "heif, transparent": lambda: sample.encode(RGBA, "HEIF", quality=95),
    "avif": lambda: sample.encode(PHOTO, "AVIF", quality=95),
    "avif, nclx of P3": avif_of_p3,
    "avif, profile of P3": lambda: sample.encode(
        PHOTO, "AVIF", quality=95, icc_profile=display_p3()
    ),
    "avif, transparent": lambda: sample.encode(RGBA, "AVIF", quality=95),
    "tiff, profile of P3": lambda: sample.encode(PHOTO, "TIFF", icc_profile=display_p3()),
    "gif": lambda: sample.encode(PHOTO, "GIF"),
    "bmp": lambda: sample.encode(PHOTO, "BMP"),
}


def said_by(content: bytes) -> bytes:
    """The profile of what a file says of its colours, read in this test's own way."""
    with Image.open(io.BytesIO(content)) as picture:
        profile = picture.info.get("icc_profile")
        nclx = picture.info.get("nclx_profile") or {}
        says_p3 = b"colrnclx\x00\x0c" in content or nclx.get("color_primaries") == 12
        if content.startswith(b"\x89PNG"):
            head = content[: content.index(b"IDAT")]
            says_p3 = b"cICP\x0c\x0d" in head or (b"cHRM" in head and b"sRGB" not in head)
        if profile:
            return bytes(profile)
        return display_p3() if says_p3 else lcms_srgb()


def seen(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """CIELAB of a file by LittleCMS, through Display P3; and its transparency."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(said_by(content)))
    target = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    with Image.open(io.BytesIO(content)) as picture:
        alpha = None
        if picture.has_transparency_data:
            alpha = np.array(picture.convert("RGBA").getchannel("A"))
        if picture.mode.startswith("I"):
            plain = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert("RGB")
        else:
            is_grey = profile.profile.xcolor_space.strip() == "GRAY"
            plain = picture.convert("L" if is_grey else "RGB")
    shown = ImageCms.profileToProfile(plain, profile, target, outputMode="RGB")
    assert shown is not None
    coded = np.asarray(shown).astype(np.float64) / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    xyz = light @ np.array([P3_COLORANTS[kind] for kind in (b"rXYZ", b"gXYZ", b"bXYZ")])
    return xyz2lab(xyz, illuminant="D50"), alpha


def prepared(content: bytes, source: str = "x", output: str = "x") -> PreparedPhoto:
    return prepare(content, decode_photo(content, PhotoLimits()), source, output)


def rewritten(content: bytes, source: str = "x", output: str = "x") -> bytes:
    """The file that a photo comes back as if the method changed nothing."""
    photo = prepared(content, source, output)
    return photo.coding.encode(photo.decoded.image)


@pytest.mark.parametrize("name", FILES)
def test_a_file_looks_the_same_before_and_after(name: str) -> None:
    content = FILES[name]()
    before, alpha = seen(content)
    after, alpha_after = seen(rewritten(content))
    assert float(deltaE_ciede2000(before, after).mean()) <= 1
    assert (alpha is None) == (alpha_after is None)
    if alpha is not None and alpha_after is not None:
        assert np.abs(alpha.astype(int) - alpha_after).mean() <= 1


@pytest.mark.parametrize("output", ["png", "jpg", "webp", "avif", "heic"])
@pytest.mark.parametrize(
    "name", ["heif, nclx of P3", "png, gAMA and cHRM", "png, cICP of P3", "png, grey by gamma"]
)
def test_another_format_says_the_same_in_its_own_way(name: str, output: str) -> None:
    content = FILES[name]()
    before, after = seen(content)[0], seen(rewritten(content, "x", output))[0]
    # Colours of small areas: the noise of this photo is another after any lossy coding.
    assert float(deltaE_ciede2000(areas(before), areas(after)).mean()) <= 1


def areas(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 8 x 8 pixels."""
    return np.asarray(lab.reshape(12, 8, 12, 8, 3).mean(axis=(1, 3)))


def test_the_matrix_would_notice() -> None:
    p3 = FILES["png, profile of P3"]()
    ignored = sample.encode(np.asarray(Image.open(io.BytesIO(p3))), "PNG")
    assert float(deltaE_ciede2000(seen(p3)[0], seen(ignored)[0]).mean()) > 2
    grey = FILES["png, grey by gamma"]()
    ignored = sample.encode(PHOTO[..., 0], "PNG")
    assert float(deltaE_ciede2000(seen(grey)[0], seen(ignored)[0]).mean()) > 2


@pytest.mark.parametrize("name", [name for name in FILES if "P3" in name or "cHRM" in name])
def test_wide_gamut_stays_wide(name: str) -> None:
    photo = prepared(FILES[name]())
    assert not photo.coding.colours.is_plain
    assert np.abs(photo.decoded.image.astype(int) - PHOTO).mean() < 4, "numbers stay as they are"


@pytest.mark.parametrize("name", [name for name in FILES if "grey" in name])
def test_a_grey_photo_stays_grey_whatever_the_method_does(name: str) -> None:
    photo = prepared(FILES[name]())
    coloured = photo.decoded.image.copy()
    coloured[..., 0] //= 2
    content = photo.coding.encode(coloured)
    assert Image.open(io.BytesIO(content)).mode in ("L", "LA")
    shown = decode_coded(content)
    assert (shown == shown[..., :1]).all()
    np.testing.assert_array_equal(shown, photo.coding.read_back(coloured))


def test_grey_in_webp_has_three_equal_channels() -> None:
    coding = prepared(FILES["png, grey"](), "x", "webp").coding
    assert coding.grey
    shown = coding.read_back(PHOTO).astype(int)
    assert np.abs(shown - shown[..., :1]).max() <= 2


def test_colours_that_only_exif_says_are_still_said_so() -> None:
    exif = Image.Exif()
    exif.update({0x8769: {0xA001: 0xFFFF, 0xA005: {1: "R03"}}, 0x010F: "SecretPhoneMaker"})
    content = sample.encode(PHOTO, "JPEG", quality=95, exif=exif.tobytes())
    after = rewritten(content)
    again = Image.open(io.BytesIO(after))
    assert again.getexif().get_ifd(0x8769)[0xA001] == 0xFFFF
    interoperability: Any = again.getexif().get_ifd(0xA005)
    assert interoperability[1] == "R03"
    assert b"SecretPhoneMaker" not in after
    assert "icc_profile" not in again.info
    notice = prepared(content).coding.encode(PHOTO, "(c) Ann Example")
    assert b"(c) Ann Example" in notice


def test_hdr_is_mapped_to_what_an_ordinary_screen_shows() -> None:
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (64, 1))[..., None], 3, axis=2)
    for transfer in (16, 18):
        chunk = (b"cICP", bytes([9, transfer, 0, 1]))
        content = with_chunks(sample.encode(ramp, "PNG"), chunk)
        photo = decode_photo(content, PhotoLimits())
        assert photo.notes == ("tone_mapped",)
        assert photo.colours.is_plain
        row = photo.image[0].astype(int)
        assert (np.diff(row, axis=0) >= 0).all()
        assert np.abs(row - row[:, :1]).max() <= 1, "grey stays grey"
        assert row[0].max() <= 1
        assert row[-1].min() >= 250
        # Paper white, 203 nits, is coded 0.58 in PQ and 0.75 in HLG (BT.2408).
        white = row[round(255 * (0.58 if transfer == 16 else 0.75)), 0]
        assert 170 <= white <= 210
        again = rewritten(content)
        assert b"cICP" not in again


def test_hdr_colours_stay_themselves() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[...] = (140, 40, 40)
    content = sample.encode(red, "HEIF", quality=95, color_primaries=9, transfer_characteristics=16)
    photo = decode_photo(content, PhotoLimits())
    assert "tone_mapped" in photo.notes
    mean = photo.image.reshape(-1, 3).mean(axis=0)
    assert mean[0] > 120
    assert mean[0] > 3 * mean[1:].max()


def test_a_profile_keeps_its_colours_and_nothing_else() -> None:
    profile = bytearray(display_p3())
    profile[48:52], profile[80:84] = b"ANNS", b"ANNC"
    profile[24:36] = struct.pack(">6H", 2024, 5, 6, 7, 8, 9)
    kept = cleaned(bytes(profile))
    assert kept is not None
    for secret in (b"ANNS", b"ANNC", "sRGB".encode("utf-16-be"), struct.pack(">3H", 2024, 5, 6)):
        assert secret in profile
        assert secret not in kept
    assert cleaned(kept) == kept
    grey = cleaned(grey_gamma_profile())
    assert grey is not None
    ImageCms.ImageCmsProfile(io.BytesIO(grey))
    assert cleaned(b"junk" * 50) is None


def test_made_profiles_are_what_lcms_makes() -> None:
    white = (0.3127, 0.3290)
    assert is_srgb(rgb_profile(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), white, None))
    made = rgb_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), white, None)
    assert not is_srgb(made)
    wanted = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    found = ImageCms.profileToProfile(
        Image.fromarray(PHOTO), ImageCms.ImageCmsProfile(io.BytesIO(made)), wanted
    )
    assert found is not None
    assert np.abs(np.asarray(found).astype(int) - PHOTO).max() <= 1


def test_transparency_goes_where_a_format_has_none() -> None:
    photo = prepared(FILES["png, transparent"](), "x", "jpg")
    assert photo.decoded.notes == ("alpha_flattened",)
    assert photo.coding.alpha is None
    white = 255 - ALPHA.astype(int)
    expected = PHOTO * (ALPHA[..., None] / 255) + white[..., None]
    assert np.abs(photo.decoded.image - expected).max() <= 1


@pytest.mark.parametrize("name", [name for name in FILES if "transparent" in name])
def test_below_transparency_lies_the_protected_photo(name: str) -> None:
    photo = prepared(FILES[name]())
    changed = 255 - photo.decoded.image
    shown = decode_coded(photo.coding.encode(changed))
    assert np.abs(shown.astype(int) - photo.coding.read_back(changed)).max() == 0
    if not photo.coding.grey:
        assert np.abs(shown.astype(int) - changed).mean() < 6
