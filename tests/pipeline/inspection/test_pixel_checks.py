"""What a file shows of a face against what its row says."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.inspection.pixel_checks import visibility_findings
from pipeline.manifest_row import ManifestRow
from tests.pipeline.protected_album import FACE


@pytest.fixture
def row() -> ManifestRow:
    return ManifestRow(
        identity="ann",
        source_uri="file:///ann/1.jpg",
        source_version="1",
        status="protected",
        faces=[FACE],
        face_visibility_jod=9.3,
    )


def test_a_face_that_shows_more_than_its_row_says_is_found(row: ManifestRow) -> None:
    original = np.full((80, 80, 3), 128, np.uint8)
    changed = original.copy()
    changed[:, ::8] += 40
    (finding,) = visibility_findings(original, changed, row)
    assert "the manifest says 9.30" in finding
    assert visibility_findings(original, original, row) == []


def test_rows_without_the_measure_or_a_face_say_nothing(row: ManifestRow) -> None:
    original, changed = np.zeros((80, 80, 3), np.uint8), np.full((80, 80, 3), 255, np.uint8)
    for silent in (replace(row, face_visibility_jod=None), replace(row, faces=[])):
        assert visibility_findings(original, changed, silent) == []
