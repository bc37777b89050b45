"""First bytes tell what may be a photo: real files of each format, and what is easily mistaken."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PhotoError
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.images.signatures import NUM_START_BYTES, is_read, may_be_photo, unread_format
from tests import sample_photos as sample


@pytest.mark.parametrize(
    "file_format", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "BMP", "TIFF", "GIF", "MPO"]
)
def test_formats_that_are_read_are_known_by_their_first_bytes(file_format: str) -> None:
    start = sample.encode(sample.photo_image(), file_format)[:NUM_START_BYTES]
    assert is_read(start)
    assert may_be_photo(start)


@pytest.mark.parametrize("file_format", ["JPEG2000", "PPM"])
def test_other_formats_of_photos_are_known_and_named(file_format: str) -> None:
    content = sample.encode(sample.photo_image(), file_format)
    assert may_be_photo(content[:NUM_START_BYTES])
    assert not is_read(content)
    with pytest.raises(PhotoError) as caught:
        decode_photo(content, PhotoLimits())
    name = {"JPEG2000": "JPEG 2000", "PPM": "Netpbm"}[file_format]
    assert str(caught.value.reason) == f"unsupported_format: {name}"


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "camera raw"),
        (b"\x00\x00\x00\x18ftypcrx ", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"8BPS\x00\x01", "Photoshop"),
    ],
)
def test_formats_without_a_writer_here_are_known_too(start: bytes, name: str) -> None:
    assert unread_format(start) == name


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"BMW is a make of cars, and this is a text",
        b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"II is no number",
        b"Photos of 2024",
        b'{"a": 1}',
    ],
)
def test_what_is_no_photo_is_not_taken_for_one(start: bytes) -> None:
    assert not may_be_photo(start)


@pytest.mark.parametrize("tags", [{254: 1}, {254: 0, 50706: b"\x01\x04\x00\x00"}])
def test_a_raw_file_that_opens_as_its_small_preview_is_refused(tags: dict[int, object]) -> None:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.full((120, 160, 3), 90, np.uint8))
    picture.save(buffer, "TIFF", tiffinfo=tags)
    with pytest.raises(PhotoError) as caught:
        decode_photo(buffer.getvalue(), PhotoLimits())
    assert str(caught.value.reason) == "unsupported_format: camera raw"
