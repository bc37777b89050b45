"""``verify`` finds what was changed behind the manifest's back, and nothing in a clean OUTPUT."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigurationError
from pipeline.images.coding import decode_coded
from pipeline.images.files import decode_photo
from pipeline.inspection.explain import explain_photo
from pipeline.inspection.findings import VerifyReport, report_lines
from pipeline.inspection.pixel_checks import budget_findings, face_mask
from pipeline.inspection.status import read_status
from pipeline.inspection.verify import verify_output
from pipeline.manifest_row import ManifestRow
from tests.pipeline.protected_album import FACE, LIMITS, ProtectedAlbum, perturbed
from tests.sample_photos import jpeg_bytes


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    return ProtectedAlbum(tmp_path)


def verified(album: ProtectedAlbum) -> VerifyReport:
    return verify_output(str(album.output), str(album.input))


def test_a_clean_output_is_found_clean(album: ProtectedAlbum) -> None:
    report = verified(album)
    assert report.findings == []
    assert report.notes == []
    assert (report.num_files, report.num_compared, report.num_input_photos) == (4, 4, 4)
    assert report.statuses == {"protected": 4}
    assert report_lines(report)[-1] == "found       nothing wrong"


def test_progress_reaches_every_row(album: ProtectedAlbum) -> None:
    seen: list[tuple[int, int]] = []
    verify_output(str(album.output), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_missing_file_is_found(album: ProtectedAlbum) -> None:
    album.output_file("ann/1").unlink()
    assert verified(album).kinds == {"missing_output": 1}


def test_a_flipped_byte_is_found(album: ProtectedAlbum) -> None:
    path = album.output_file("ben/2")
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    report = verified(album)
    assert report.kinds == {"wrong_hash": 1}
    assert report.findings[0].where.endswith("images/ben/2.jpg.png")


def test_a_stranger_in_images_is_found(album: ProtectedAlbum) -> None:
    album.output_file("ann/99").write_bytes(b"no photo")
    assert verified(album).kinds == {"unknown_file": 1}


def test_a_photo_that_nobody_decided_on_is_found(album: ProtectedAlbum) -> None:
    (album.input / "ann" / "3.jpg").write_bytes(jpeg_bytes(seed=99))
    report = verified(album)
    assert report.kinds == {"not_accounted": 1}
    assert report.findings[0].where.endswith("/in/ann/3.jpg")


def test_a_photo_changed_since_is_found_and_its_budget_not_judged(album: ProtectedAlbum) -> None:
    (album.input / "ann" / "1.jpg").write_bytes(jpeg_bytes(seed=99))
    report = verified(album)
    assert report.kinds == {"outdated": 1}
    assert report.num_compared == 3
    assert report.notes == ["budgets not checked for 1 photos: the original has changed since"]


def test_without_the_originals_the_files_are_still_checked(album: ProtectedAlbum) -> None:
    shutil.rmtree(album.input)
    report = verify_output(str(album.output))
    assert report.kinds == {}
    assert (report.num_files, report.num_compared) == (4, 0)
    assert report.notes == ["budgets not checked for 4 photos: the original is gone"]


def test_a_moved_output_is_verified_where_it_is(album: ProtectedAlbum, tmp_path: Path) -> None:
    moved = album.output.rename(tmp_path / "elsewhere")
    report = verify_output(str(moved), str(album.input))
    assert report.kinds == {}
    assert report.num_compared == 4


def test_an_unfinished_run_is_noted(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    album.begin("run-2", album.sets)
    assert "runs not finished: 1" in verified(album).notes[0]


def test_a_file_of_an_earlier_decision_is_noted_not_blamed(album: ProtectedAlbum) -> None:
    album.begin("run-2", [album.photo_set([album.photos[0]])])
    ledgered = album.photo_set([album.photos[0]])
    album.commit("run-2", ledgered, has_outputs=False, status="failed")
    from pipeline.output.fold import Fold
    from pipeline.output.runs import finish_run

    Fold(album.store, "run-2")()
    finish_run(album.store, "run-2", {})
    report = verified(album)
    assert report.kinds == {}
    assert report.notes == ["files that only an earlier decision on their photo knows: 1"]


def test_an_output_in_a_bucket_is_verified_explained_and_counted(
    tmp_path: Path, s3_prefix: str
) -> None:
    album = ProtectedAlbum(tmp_path, output_uri=s3_prefix)
    report = verify_output(s3_prefix, str(album.input))
    assert report.kinds == {}
    assert (report.num_files, report.num_compared) == (4, 4)
    assert read_status(album.store).counts == {"protected": 4}
    assert "is there" in "\n".join(explain_photo(album.store, f"{s3_prefix}/images/ann/1.jpg.png"))
    album.store.delete(["images/ann/1.jpg.png"])
    assert verify_output(s3_prefix).kinds == {"missing_output": 1}


def test_no_output_and_an_empty_output_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no OUTPUT at"):
        verify_output(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="holds no manifest rows"):
        verify_output(str(tmp_path))


ROW = ManifestRow(
    identity="ann",
    source_uri="file:///in/ann/1.jpg",
    source_version="1",
    status="protected",
    faces=[FACE],
    epsilon_finetune_levels=0.0,
    epsilon_zeroshot_levels=11.0,
)


def test_one_pixel_over_the_budget_inside_a_face_is_found(album: ProtectedAlbum) -> None:
    original = decode_photo((album.input / "ann" / "1.jpg").read_bytes(), LIMITS).image
    assert budget_findings(original, perturbed(original, 11), ROW) == []
    changed = perturbed(original, 11)
    changed[20, 20] = perturbed(original, 12)[20, 20]
    assert budget_findings(original, changed, ROW) == [
        "changed by 12 levels inside faces, 11 allowed"
    ]


def test_one_level_outside_the_faces_is_found_where_only_layer_2_ran() -> None:
    original = np.full((96, 80, 3), 100, np.uint8)
    changed = original.copy()
    changed[15, 16, 0] += 1  # the row just above the mask
    assert budget_findings(original, changed, ROW) == [
        "changed by 1 levels outside faces, 0 allowed"
    ]
    changed[15, 16, 0] = 100
    changed[16, 16, 0] += 1  # the mask's first pixel
    assert budget_findings(original, changed, ROW) == []


def test_layer_1_may_change_every_pixel_and_faces_get_both_budgets() -> None:
    original = np.full((96, 80, 3), 100, np.uint8)
    row = replace(ROW, epsilon_finetune_levels=7.0)
    changed = original + 7
    changed[16:64, 16:56] = 118
    assert budget_findings(original, changed.astype(np.uint8), row) == []
    changed[0, 0, 0] = 108
    changed[30, 30, 0] = 119
    assert len(budget_findings(original, changed.astype(np.uint8), row)) == 2


def test_a_wrong_number_in_the_manifest_is_found() -> None:
    original = np.full((96, 80, 3), 100, np.uint8)
    assert (
        "the manifest says 5"
        in budget_findings(original, original, replace(ROW, max_change_levels=5))[0]
    )


def test_masks_reaching_over_the_border_are_cut() -> None:
    mask = face_mask(
        (10, 10), [replace(FACE, mask_extent=[-3, -3, 2, 2]), replace(FACE, mask_extent=None)]
    )
    assert mask.sum() == 4
    assert face_mask((10, 10), [replace(FACE, mask_extent=[8, 8, 99, 99])]).sum() == 4


def test_the_output_pixels_are_those_of_the_upright_original(album: ProtectedAlbum) -> None:
    original = decode_photo((album.input / "ann" / "1.jpg").read_bytes(), LIMITS).image
    protected = decode_coded(album.output_file("ann/1").read_bytes())
    assert original.shape == protected.shape
