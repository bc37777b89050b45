"""Files come back as they came: format, tables, sampling, size; nothing else is inside."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from pipeline.images.coding import Coding, decode_coded, prepare
from pipeline.images.files import PhotoLimits, decode_photo
from tests import sample_photos as sample

PHOTO = sample.photo_image(160, 176)
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 75}),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("JPEG", {"quality": 50, "subsampling": 1}),
    ("WEBP", {"quality": 80}),
    ("WEBP", {"lossless": True}),
    ("PNG", {}),
    ("HEIF", {"quality": 60}),
    ("AVIF", {"quality": 60}),
]


def coding_for(content: bytes, source: str, output: str) -> tuple[Coding, tuple[str, ...]]:
    prepared = prepare(content, decode_photo(content, PhotoLimits()), source, output)
    return prepared.coding, prepared.notes


def opened(content: bytes) -> Any:
    return Image.open(io.BytesIO(content))


def pixels_of(content: bytes) -> np.ndarray:
    return np.array(opened(content).convert("RGB"))


@pytest.mark.parametrize(("file_format", "options"), KINDS)
def test_a_file_comes_back_in_its_kind_and_size(file_format: str, options: dict[str, Any]) -> None:
    content = sample.encode(PHOTO, file_format, **options)
    coding, notes = coding_for(content, "x", "x")
    again = coding.encode(pixels_of(content))
    assert (opened(again).format, notes) == (file_format, ())
    assert len(again) <= 1.05 * len(content)
    assert coding.changes_pixels == (not (file_format == "PNG" or "lossless" in options))
    np.testing.assert_array_equal(coding.read_back(PHOTO), decode_coded(coding.encode(PHOTO)))
    assert again == coding.encode(pixels_of(content))


@pytest.mark.parametrize("options", [options for kind, options in KINDS if kind == "JPEG"])
def test_a_jpeg_keeps_its_tables_sampling_and_scans(options: dict[str, Any]) -> None:
    content = sample.encode(PHOTO, "JPEG", **options)
    before = opened(content)
    after = opened(coding_for(content, "jpg", "jpg")[0].encode(PHOTO))
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
    assert ("progressive" in after.info) == ("progressive" in before.info)


def test_a_turned_jpeg_turns_its_tables() -> None:
    table = [*range(1, 65)]
    options = {"qtables": [table, table], "exif": sample.exif_bytes(6)}
    content = sample.encode(PHOTO, "JPEG", **options)
    coding, _ = coding_for(content, "jpg", "jpg")
    assert coding.quantisation_tables is not None
    turned = np.reshape(coding.quantisation_tables[0], (8, 8))
    held = opened(content).quantization[0]
    np.testing.assert_array_equal(turned, np.reshape(held, (8, 8)).T)


def test_a_grey_jpeg_stays_grey() -> None:
    content = sample.encode(PHOTO[..., 0], "JPEG")
    again = coding_for(content, "jpg", "jpg")[0].encode(PHOTO)
    assert opened(again).mode == "L"
    assert decode_coded(again).shape == PHOTO.shape


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF"])
def test_what_is_not_written_becomes_png(file_format: str) -> None:
    content = sample.encode(PHOTO, file_format)
    coding, notes = coding_for(content, file_format.lower(), "png")
    assert (coding.file_format, notes) == ("PNG", ("written_as_png",))


def test_content_says_the_format_unless_the_key_asks_for_another() -> None:
    png = sample.encode(PHOTO, "PNG")
    assert coding_for(png, "jpg", "jpg")[0].file_format == "PNG"
    assert coding_for(png, "png", "jpg")[0].file_format == "JPEG"
    assert coding_for(sample.encode(PHOTO, "JPEG"), "jpg", "png")[0].file_format == "PNG"
    assert coding_for(sample.encode(PHOTO, "GIF"), "jpg", "jpg")[0].file_format == "JPEG"


@pytest.mark.parametrize(("file_format", "options"), KINDS)
def test_no_metadata_and_no_second_picture_is_written(
    file_format: str, options: dict[str, Any]
) -> None:
    content = sample.encode(PHOTO, file_format, exif=sample.exif_bytes(), **options)
    again = coding_for(content, "x", "x")[0].encode(PHOTO)
    assert b"SecretPhoneMaker" in content
    assert b"SecretPhoneMaker" not in again
    assert not opened(again).getexif()
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF", b"ftyp")
    assert sum(again.count(start) for start in starts) == 1


@pytest.mark.parametrize(("file_format", "options"), KINDS)
def test_a_copyright_notice_may_stay(file_format: str, options: dict[str, Any]) -> None:
    content = sample.encode(PHOTO, file_format, **options)
    again = coding_for(content, "x", "x")[0].encode(PHOTO, "(c) Ann Example")
    assert b"(c) Ann Example" in again


def test_what_this_program_never_writes_is_not_read_back() -> None:
    content = sample.encode(PHOTO, "PNG")
    with pytest.raises(ValueError, match="no readable image"):
        decode_coded(content[:-40])
    with pytest.raises(ValueError, match="no readable image"):
        decode_coded(sample.encode(PHOTO, "GIF"))
    with pytest.raises(ValueError, match="8-bit RGB"):
        decode_coded(sample.encode(PHOTO[..., 0].astype(np.uint16), "PNG"))


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 97])
def test_the_quality_of_a_jpeg_is_told_by_its_tables(quality: int) -> None:
    coding, _ = coding_for(sample.encode(PHOTO, "JPEG", quality=quality), "jpg", "jpg")
    assert coding.about_jpeg_quality == pytest.approx(quality, abs=1)


def test_lossless_files_have_no_jpeg_quality() -> None:
    assert Coding("PNG").about_jpeg_quality is None
    assert Coding("WEBP", lossless=True).about_jpeg_quality is None
    assert Coding("WEBP", quality=80).about_jpeg_quality == 80
