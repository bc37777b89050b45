"""Pictures and pages to look at: what they show, and where they may be written."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigurationError
from pipeline.inspection.before_after import BeforeAfter, amplified_change, before_after_png
from pipeline.inspection.report import write_report
from pipeline.inspection.summary import summary_table
from pipeline.manifest_row import ManifestRow
from tests.pipeline.protected_album import ProtectedAlbum


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    return ProtectedAlbum(tmp_path)


def test_a_change_is_shown_eightfold_around_grey_and_clipped() -> None:
    original = np.full((2, 2, 3), 100, np.uint8)
    protected = original.copy()
    protected[0, 0], protected[0, 1], protected[1, 0] = 101, 97, 140
    change = amplified_change(original, protected)
    assert change[0, 0, 0] == 136
    assert change[0, 1, 0] == 104
    assert change[1, 0, 0] == 255
    assert change[1, 1, 0] == 128


def test_the_picture_has_a_row_per_photo_and_three_panels() -> None:
    photo = np.zeros((100, 60, 3), np.uint8)
    one = Image.open(io.BytesIO(before_after_png([BeforeAfter(photo, photo)], height_px=100)))
    two = Image.open(io.BytesIO(before_after_png([BeforeAfter(photo, photo)] * 2, height_px=100)))
    assert one.width == 3 * 60 + 2 * 8
    assert two.height == 2 * one.height
    assert one.getpixel((2 * 68 + 30, 60)) == (128, 128, 128)


def test_two_sizes_and_no_photo_are_refused() -> None:
    photo = np.zeros((100, 60, 3), np.uint8)
    with pytest.raises(ValueError, match="two photos of one size"):
        before_after_png([BeforeAfter(photo, photo[:50])])
    with pytest.raises(ValueError, match="at least one photo"):
        before_after_png([])


def test_a_picture_shows_as_many_photos_as_asked_for(album: ProtectedAlbum, tmp_path: Path) -> None:
    heights = []
    for num_photos in (1, 2, 9):
        target = write_report(str(album.output), tmp_path / "new" / "picture.PNG", num_photos)
        heights.append(Image.open(io.BytesIO(target.read_bytes())).height)
    assert heights[1] == 2 * heights[0]
    assert heights[2] == 4 * heights[0]  # there are only four


def test_the_page_has_the_numbers_and_the_picture_and_names_nobody(
    album: ProtectedAlbum, tmp_path: Path
) -> None:
    page = write_report(str(album.output), tmp_path / "report.html").read_text()
    assert "<td>protected</td><td>4</td>" in page
    assert "0.99 / 0.05 / 0.20" in page
    assert "no guarantee" in page
    assert page.count("data:image/png;base64,") == 1
    assert "ann" not in page.partition("data:image")[0]


def test_numbers_are_the_worst_change_and_means() -> None:
    row = ManifestRow(
        identity="ann",
        source_uri="file:///in/ann/1.jpg",
        source_version="1",
        status="protected",
        max_change_levels=11,
        psnr_db=38.0,
        max_change_levels_outside_faces=0,
        seconds=2.0,
        identity_cosines=[],
    )
    skipped = replace(row, status="skipped", reason="no_face", max_change_levels=None)
    better = replace(row, max_change_levels=9, psnr_db=40.0)
    table = dict(summary_table([row, better, skipped]))
    assert table["photos"] == "3"
    assert table["reason no_face"] == "1"
    assert table["largest change"] == "11 levels of 255"
    assert table["PSNR, mean"] == "39 dB"
    assert "SSIM, mean" not in table


def test_nothing_is_written_into_output(album: ProtectedAlbum) -> None:
    with pytest.raises(ConfigurationError, match="lies in OUTPUT"):
        write_report(str(album.output), album.output / "images" / "report.png")


def test_other_endings_and_vanished_originals_are_refused(
    album: ProtectedAlbum, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"ending in \.html or \.png"):
        write_report(str(album.output), tmp_path / "report.pdf")
    shutil.rmtree(album.input)
    with pytest.raises(ConfigurationError, match="are the originals where they were"):
        write_report(str(album.output), tmp_path / "report.png")


def test_a_blind_page_shows_faces_twice_as_large_and_knows_which_is_protected(
    album: ProtectedAlbum, tmp_path: Path
) -> None:
    page = write_report(str(album.output), tmp_path / "blind.html", 40, blind=True).read_text()
    questions = re.findall(
        r'data-protected="(left|right)">.*?src="data:image/png;base64,([^"]+)">'
        r'<img alt="right" src="data:image/png;base64,([^"]+)">',
        page,
        re.DOTALL,
    )
    assert len(questions) == 4
    protected = {
        Image.open(path).convert("RGB").crop((9, 14, 61, 66)).resize((104, 104)).tobytes()
        for path in (album.output / "images").rglob("*.*")
    }
    for answer, left, right in questions:
        shown = Image.open(io.BytesIO(base64.b64decode(left if answer == "left" else right)))
        assert shown.size == (104, 104)
        assert shown.tobytes() in protected


def test_a_blind_test_is_a_page(album: ProtectedAlbum, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.html"):
        write_report(str(album.output), tmp_path / "blind.png", blind=True)
