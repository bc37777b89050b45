"""Image files: judged by content, upright, sRGB, 8 bits; every defect has its reason."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dladiff.pictures import to_srgb
from pipeline.config import OperationSettings
from pipeline.errors import PhotoError
from pipeline.images.coding import Coding, decode_coded
from pipeline.images.files import PhotoLimits, decode_photo
from tests import sample_photos as sample

LIMITS = PhotoLimits()
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "BMP", "TIFF", "GIF")
QUADRANTS = sample.quadrant_image()


def code_of(content: bytes, limits: PhotoLimits = LIMITS) -> str:
    with pytest.raises(PhotoError) as caught:
        decode_photo(content, limits)
    return caught.value.reason.code


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_is_recognised_by_its_content(file_format: str) -> None:
    image = sample.photo_image()
    decoded = decode_photo(sample.encode(image, file_format), LIMITS)
    assert decoded.image.dtype == np.uint8
    assert decoded.image.shape == image.shape
    assert mean_difference(decoded.image, image) < 12  # GIF has 256 colours


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_value(file_format: str) -> None:
    image = sample.photo_image()
    decoded = decode_photo(sample.encode(image, file_format), LIMITS).image
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_out_upright(orientation: int, file_format: str) -> None:
    decoded = decode_photo(sample.turned_photo(orientation, file_format), LIMITS)
    assert mean_difference(decoded.image, QUADRANTS) < 4


def test_cmyk_becomes_rgb() -> None:
    decoded = decode_photo(sample.cmyk_jpeg(), LIMITS)
    assert mean_difference(decoded.image, QUADRANTS) < 4


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = sample.photo_image()
    decoded = decode_photo(sample.grey_16_bit_png(image), LIMITS)
    np.testing.assert_array_equal(decoded.image, np.repeat(image[..., :1], 3, axis=2))
    assert decoded.notes == ("sixteen_bits_rounded",)


def test_grey_bilevel_and_palette_become_rgb() -> None:
    grey = decode_photo(sample.encode(QUADRANTS[..., 0], "PNG"), LIMITS).image
    np.testing.assert_array_equal(grey, np.repeat(QUADRANTS[..., :1], 3, axis=2))
    bilevel = decode_photo(sample.encode(QUADRANTS[..., 0] > 128, "PNG"), LIMITS).image
    np.testing.assert_array_equal(bilevel, grey)
    palette = decode_photo(sample.palette_png(QUADRANTS), LIMITS).image
    np.testing.assert_array_equal(palette, QUADRANTS)


@pytest.mark.parametrize("alpha", [255, 128, 0])
def test_transparency_is_kept_and_hides_nothing(alpha: int) -> None:
    decoded = decode_photo(sample.transparent_png(QUADRANTS, alpha), LIMITS)
    expected = np.full_like(QUADRANTS, 255) if alpha == 0 else QUADRANTS
    np.testing.assert_array_equal(decoded.image, expected)
    assert decoded.notes == ()
    if alpha == 255:
        assert decoded.alpha is None
    else:
        assert decoded.alpha is not None
        assert set(np.unique(decoded.alpha)) == {alpha}


@pytest.mark.parametrize("alpha", [254, 128, 1, 0])
def test_transparency_is_laid_on_white_as_pillow_does(alpha: int) -> None:
    content = sample.transparent_png(sample.photo_image(), alpha)
    flat = decode_photo(content, LIMITS).flattened()
    assert flat.alpha is None
    assert flat.notes == ("alpha_flattened",)
    expected, notes = to_srgb(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(flat.image, np.asarray(expected))
    again = decode_photo(content, LIMITS, notes)
    np.testing.assert_array_equal(again.image, flat.image)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(file_format: str) -> None:
    decoded = decode_photo(sample.animation(file_format), LIMITS)
    assert mean_difference(decoded.image, QUADRANTS) < 4
    assert "first_frame" in decoded.notes


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_far_from_srgb_are_converted(file_format: str) -> None:
    swapped = np.ascontiguousarray(QUADRANTS[..., [1, 0, 2]])
    content = sample.encode(swapped, file_format, icc_profile=sample.swapped_profile())
    decoded = decode_photo(content, LIMITS)
    assert mean_difference(decoded.image, QUADRANTS) < 4
    assert decoded.notes == ("converted_to_srgb",)


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = sample.photo_image()
    decoded = decode_photo(sample.encode(image, "PNG", icc_profile=profile), LIMITS)
    np.testing.assert_array_equal(decoded.image, image)
    assert decoded.notes == ()


def test_a_broken_profile_is_ignored() -> None:
    decoded = decode_photo(sample.encode(QUADRANTS, "PNG", icc_profile=b"junk" * 50), LIMITS)
    np.testing.assert_array_equal(decoded.image, QUADRANTS)
    assert decoded.notes == ("colour_profile_ignored",)


def test_broken_exif_is_ignored() -> None:
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\x01" * 40
    decoded = decode_photo(sample.jpeg_bytes(exif=exif), LIMITS)
    assert decoded.image.shape == (96, 80, 3)


def test_the_copyright_notice_is_found() -> None:
    exif = sample.exif_bytes(copyright="(c) Ann Example\x00 Editor")
    decoded = decode_photo(sample.jpeg_bytes(exif=exif), LIMITS)
    assert decoded.copyright == "(c) Ann Example Editor"
    again = decode_photo(Coding("PNG").encode(decoded.image, decoded.copyright), LIMITS)
    assert again.copyright == decoded.copyright
    assert decode_photo(sample.jpeg_bytes(), LIMITS).copyright is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"hello, this is text", "not_an_image"),
        (b"\xff\x0a" + bytes(100), "unsupported_format"),
        (b"8BPS" + bytes(100), "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "not_an_image"),
        (sample.png_claiming(60_000, 60_000), "too_many_pixels"),
        (sample.png_claiming(10_000, 10_000), "too_many_pixels"),
        (sample.png_claiming(100, 100), "truncated"),
        (sample.jpeg_bytes(height=20), "too_small"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "corrupt"),
        (sample.encode(np.zeros((64, 64), np.float32), "TIFF"), "unsupported_mode"),
        (sample.encode(np.full((64, 64), 70_000, np.int32), "TIFF"), "unsupported_mode"),
    ],
)
def test_what_is_no_photo_gets_its_reason(content: bytes, code: str) -> None:
    assert code_of(content) == code


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.98])
@pytest.mark.parametrize("file_format", FORMATS)
def test_truncated_files_are_told_apart(file_format: str, kept: float) -> None:
    content = sample.encode(sample.photo_image(), file_format)
    assert code_of(content[: int(len(content) * kept)]) == "truncated"


def test_the_size_is_checked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", refuse)
    assert code_of(sample.png_claiming(9_000, 9_000)) == "too_many_pixels"


def test_limits_come_from_the_settings() -> None:
    operation = OperationSettings(
        max_photo_bytes=1000, max_photo_megapixels=0.001, min_photo_side_px=5
    )
    assert PhotoLimits.of(operation) == PhotoLimits(1000, 1000, 5)
    assert code_of(bytes(1001), PhotoLimits.of(operation)) == "too_many_bytes"
    small = sample.encode(sample.photo_image(96, 80), "PNG")
    assert code_of(small, PhotoLimits(max_pixels=96 * 80 - 1)) == "too_many_pixels"
    assert decode_photo(small, PhotoLimits(max_pixels=96 * 80)).image.shape == (96, 80, 3)


def _spoil(position: int, value: int) -> Callable[[bytes], bytes]:
    def spoiled(content: bytes) -> bytes:
        position_in = position % len(content)
        return content[:position_in] + bytes([value]) + content[position_in + 1 :]

    return spoiled


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.builds(_spoil, st.integers(0, 5000), st.integers(0, 255)), max_size=5),
)
def test_hostile_bytes_never_raise_anything_else(
    file_format: str, spoilers: list[Callable[[bytes], bytes]]
) -> None:
    options = {} if file_format in ("BMP", "GIF") else {"exif": sample.exif_bytes(6)}
    content = sample.encode(QUADRANTS, file_format, **options)
    for spoil in spoilers:
        content = spoil(content)
    try:
        decoded = decode_photo(content, LIMITS)
    except PhotoError:
        return
    assert decoded.image.shape[2] == 3


def test_png_round_trip_is_exact_and_deterministic() -> None:
    image = sample.photo_image()
    content = Coding("PNG").encode(image)
    assert content == Coding("PNG").encode(image.copy())
    np.testing.assert_array_equal(decode_coded(content), image)
    np.testing.assert_array_equal(
        decode_coded(Coding("PNG").encode(image[:, ::-1])), image[:, ::-1]
    )


def chunk_kinds(content: bytes) -> list[bytes]:
    kinds, position = [], 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kinds.append(content[position + 4 : position + 8])
        position += 12 + length
    return kinds


def test_png_has_no_metadata_but_says_srgb() -> None:
    source = sample.jpeg_bytes(exif=sample.exif_bytes(copyright="(c) Ann"), comment=b"secret")
    decoded = decode_photo(source, LIMITS)
    content = Coding("PNG").encode(decoded.image)
    assert set(chunk_kinds(content)) == {b"IHDR", b"sRGB", b"IDAT", b"IEND"}
    with_notice = Coding("PNG").encode(decoded.image, decoded.copyright)
    assert set(chunk_kinds(with_notice)) == {b"IHDR", b"sRGB", b"iTXt", b"IDAT", b"IEND"}
    assert b"SecretPhoneMaker" not in with_notice


def test_encode_png_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match="uint8 HWC RGB"):
        Coding("PNG").encode(np.zeros((8, 8, 3), np.float32))


def test_pictures_of_several_frames_from_phones_are_jpeg() -> None:
    frames = [Image.fromarray(QUADRANTS), Image.fromarray(sample.photo_image(96, 64))]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:], quality=95)
    decoded = decode_photo(buffer.getvalue(), LIMITS)
    assert decoded.notes == ("trailing_bytes_dropped",)
    assert mean_difference(decoded.image, QUADRANTS) < 4
