"""What every viewer shows is protected; what is really cut is told apart."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PhotoError
from pipeline.images.coding import decode_coded, prepare
from pipeline.images.damage import has_trailing_bytes, with_end
from pipeline.images.files import PhotoLimits, decode_photo
from tests import sample_photos as sample

LIMITS = PhotoLimits()
KINDS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"quality": 40, "subsampling": 0},
]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("num_lost", [1, 2])
def test_a_jpeg_without_its_end_marker_is_decoded(options: dict[str, Any], num_lost: int) -> None:
    whole = sample.jpeg_bytes(128, 112, **options)
    decoded = decode_photo(whole[:-num_lost], LIMITS)
    assert decoded.notes == ("end_marker_missing",)
    np.testing.assert_array_equal(decoded.image, decode_photo(whole, LIMITS).image)
    again = prepare(whole[:-num_lost], decoded, "jpg", "jpg").coding.encode(decoded.image)
    assert again.endswith(b"\xff\xd9")
    assert decode_coded(again).shape == decoded.image.shape


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("num_lost", [12, 40, 300, 1500])
def test_what_is_really_cut_stays_truncated(options: dict[str, Any], num_lost: int) -> None:
    whole = sample.jpeg_bytes(128, 112, **options)
    assert with_end(whole[:-num_lost]) is None
    with pytest.raises(PhotoError) as caught:
        decode_photo(whole[:-num_lost], LIMITS)
    assert caught.value.reason.code == "truncated"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("behind", [b"\0" * 7, b"garbage" * 99, sample.jpeg_bytes(seed=3)])
def test_bytes_behind_a_picture_are_named_and_dropped(file_format: str, behind: bytes) -> None:
    whole = sample.encode(sample.photo_image(), file_format)
    assert not has_trailing_bytes(whole)
    decoded = decode_photo(whole + behind, LIMITS)
    assert decoded.notes == ("trailing_bytes_dropped",)
    np.testing.assert_array_equal(decoded.image, decode_photo(whole, LIMITS).image)
    again = prepare(whole + behind, decoded, "x", "x").coding.encode(decoded.image)
    assert not has_trailing_bytes(again)
    assert len(behind) < 10 or behind[-40:] not in again


def test_a_thumbnail_inside_is_not_the_end() -> None:
    thumbnail = sample.jpeg_bytes(32, 32)
    exif = sample.exif_bytes() + thumbnail
    content = sample.jpeg_bytes(exif=exif, progressive=True, restart_marker_rows=2)
    assert thumbnail in content
    assert not has_trailing_bytes(content)


def test_a_second_picture_of_a_phone_is_named() -> None:
    frames = [Image.fromarray(sample.photo_image(64, 64, seed)) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    assert decode_photo(buffer.getvalue(), LIMITS).notes == ("trailing_bytes_dropped",)
