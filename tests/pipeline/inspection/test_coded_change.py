"""What a lossy file tells of the change before its coding: never too much, and enough."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.filters import gaussian

from pipeline.images.coding import PreparedPhoto, prepare
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.inspection.coded_change import least_change
from pipeline.inspection.pixel_checks import coded_findings
from pipeline.inspection.verify import verify_output
from pipeline.manifest_row import FaceColumn, ManifestRow
from pipeline.output.fold import write_part
from pipeline.output.manifest import newest_rows
from pipeline.upkeep.convert import convert_output
from tests import sample_photos as sample
from tests.pipeline.protected_album import LIMITS
from tests.pipeline.upkeep.test_convert import album_of_known_settings, light

FACE = [48, 48, 144, 144]
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"quality": 75}),
    ("JPEG", {"quality": 50, "progressive": True}),
    ("WEBP", {"quality": 80}),
    ("AVIF", {"quality": 70}),
]


def photo_of(file_format: str, options: dict[str, Any]) -> PreparedPhoto:
    content = sample.encode(sample.photo_image(192, 208), file_format, **options)
    return prepare(content, decode_photo(content, PhotoLimits()), "x", "x")


def changes(shape: tuple[int, ...]) -> dict[str, NDArray[np.int_]]:
    """Patterns of one level, from fine noise to what covers areas."""
    rng = np.random.default_rng(0)
    smooth = gaussian(rng.standard_normal(shape), 3, channel_axis=2)
    return {
        "noise": rng.choice([-1, 1], shape),
        "grey noise": np.repeat(rng.choice([-1, 1], shape[:2])[..., None], 3, axis=2),
        "checkers": np.repeat((1 - 2 * (np.indices(shape[:2]).sum(0) % 2))[..., None], 3, axis=2),
        "chroma": rng.choice([-1, 1], shape[:2])[..., None] * np.array([1, -1, 1]),
        "smooth": np.sign(smooth).astype(int),
        "flat": np.ones(shape, int),
    }


def moved(image: NDArray[np.uint8], change: NDArray[np.int_]) -> NDArray[np.uint8]:
    return (image + change).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("file_format", "options"), KINDS)
@pytest.mark.parametrize("levels", [2, 8, 20])
def test_it_never_claims_more_than_was_done(
    file_format: str, options: dict[str, Any], levels: int
) -> None:
    photo = photo_of(file_format, options)
    clean, coding = photo.decoded.image, photo.coding
    everywhere = np.ones(clean.shape[:2], bool)
    for change in changes(clean.shape).values():
        coded = coding.read_back(moved(clean, levels * change))
        inside, outside = least_change(clean, coding.read_back(clean), coded, everywhere, coding)
        assert inside <= levels
        assert outside == 0


@pytest.mark.parametrize(("file_format", "options"), KINDS)
def test_it_sees_most_of_what_covers_areas(file_format: str, options: dict[str, Any]) -> None:
    photo = photo_of(file_format, options)
    clean, coding = photo.decoded.image, photo.coding
    coded = coding.read_back(moved(clean, 20 * changes(clean.shape)["flat"]))
    everywhere = np.ones(clean.shape[:2], bool)
    inside, _ = least_change(clean, coding.read_back(clean), coded, everywhere, coding)
    assert inside > (15 if file_format == "JPEG" else 8)


def row_saying(inside: int, outside: int = 0) -> ManifestRow:
    return ManifestRow(
        identity="ann",
        source_uri="file:///in/ann/1.jpg",
        source_version="1",
        status="protected",
        faces=[FaceColumn([48, 48, 144, 144], [0.0] * 10, 0.9, FACE)],
        epsilon_finetune_levels=0.0,
        epsilon_zeroshot_levels=16.0,
        max_change_levels=inside,
        max_change_levels_outside_faces=outside,
    )


def in_face(change: NDArray[np.int_]) -> NDArray[np.int_]:
    kept = np.zeros_like(change)
    kept[48:144, 48:144] = change[48:144, 48:144]
    return kept


@pytest.mark.parametrize(("file_format", "options"), KINDS[:3])
def test_a_row_that_says_too_little_is_found_out(file_format: str, options: dict[str, Any]) -> None:
    photo = photo_of(file_format, options)
    clean, coding = photo.decoded.image, photo.coding
    smooth = in_face(changes(clean.shape)["smooth"])
    honest = coding.read_back(moved(clean, 16 * smooth))
    assert coded_findings(clean, honest, row_saying(16), coding) == []
    assert "at least" in coded_findings(clean, honest, row_saying(4), coding)[0]
    beyond = coding.read_back(moved(clean, 40 * smooth))
    findings = coded_findings(clean, beyond, row_saying(16), coding)
    assert any("16 allowed" in text for text in findings)


def test_a_single_level_far_from_faces_is_seen_in_a_jpeg() -> None:
    photo = photo_of("JPEG", {"quality": 95})
    clean, coding = photo.decoded.image, photo.coding
    change = np.zeros(clean.shape, int)
    change[:16, 160:] = 3
    findings = coded_findings(clean, coding.read_back(moved(clean, change)), row_saying(16), coding)
    assert any("outside faces" in text for text in findings)


def test_verify_does_not_believe_the_manifest(tmp_path: Path) -> None:
    album = album_of_known_settings(tmp_path)
    convert_output(album.store, "same", load=light)
    assert verify_output(str(album.output)).num_findings == 0
    row = next(row for row in newest_rows(album.store) if row.source_uri.endswith("ann/1.jpg"))
    original = (album.input / "ann/1.jpg").read_bytes()
    photo = prepare(original, decode_photo(original, LIMITS), "jpg", "jpg")
    stronger = moved(photo.decoded.image, 60 * np.ones(photo.decoded.image.shape, int))
    content = photo.coding.encode(stronger)
    shown, clean = photo.coding.read_back(stronger), photo.coding.read_back(photo.decoded.image)
    largest = int(np.abs(shown.astype(int) - clean).max())
    lie = dataclasses.replace(
        row,
        output_sha256=hashlib.sha256(content).hexdigest(),
        coded_change_levels=largest,
        committed_at=None,
    )
    album.store.write("images/ann/1.jpg", content)
    write_part(album.store, "lie", [lie])
    report = verify_output(str(album.output))
    assert set(report.kinds) == {"over_budget"}
    assert "outside faces" in " ".join(finding.detail for finding in report.findings)
