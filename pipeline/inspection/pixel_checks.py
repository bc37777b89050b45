"""Does a protected photo keep to its budgets? Measured on the re-read pixels, in 8-bit levels.

Knows two images and a manifest row; knows no files.
"""

import math
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.images.coding import Coding
from pipeline.images.files import Image
from pipeline.inspection.coded_change import least_change
from pipeline.manifest_row import FaceColumn, ManifestRow

_JOD_TOLERANCE = 0.05
"""Machines differ in the last bits, and the row may be of a GPU."""
_ONE_AT_A_TIME = Lock()


def budget_findings(original: Image, protected: Image, row: ManifestRow) -> list[str]:
    """What is wrong with a protected photo, one sentence each; empty if nothing is.

    Layer 1 may change every pixel by ``epsilon_finetune_levels``; inside the faces' mask extents
    layer 2 adds ``epsilon_zeroshot_levels``. Outside of them nothing else may change.

    Args:
        original: Upright pixels as the worker decoded them.
        protected: Pixels of the published file.
        row: Its manifest row.
    """
    if original.shape != protected.shape:
        return [f"the original has {_size(original)} pixels, the output {_size(protected)}"]
    change = np.abs(original.astype(np.int16) - protected.astype(np.int16)).max(axis=2)
    faces = face_mask(change.shape, row.faces or ())
    outside, inside = _largest(change[~faces]), _largest(change[faces])
    findings = _beyond_budget(outside, inside, row)
    recorded = row.max_change_levels
    if recorded is not None and recorded != max(outside, inside):
        findings.append(
            f"largest change is {max(outside, inside)} levels, the manifest says {recorded}"
        )
    return findings


def coded_findings(
    original: Image, protected: Image, row: ManifestRow, coding: Coding
) -> list[str]:
    """The same for a lossy file, whose coding moves pixels further than any budget.

    The budgets hold for the pixels before coding. The level that the row recorded of them is held
    against what the file shows in spite of its coding (``coded_change.least_change``), and the
    file must differ from the original, coded the same way, as the row says.

    Args:
        original: Upright pixels as the worker decoded them.
        protected: Pixels of the published file.
        row: Its manifest row.
        coding: How the file was written.
    """
    if original.shape != protected.shape:
        return [f"the original has {_size(original)} pixels, the output {_size(protected)}"]
    coded = coding.read_back(original)
    faces = face_mask(original.shape[:2], row.faces or ())
    least_inside, least_outside = least_change(original, coded, protected, faces, coding)
    recorded, recorded_outside = (
        row.max_change_levels or 0,
        row.max_change_levels_outside_faces or 0,
    )
    inside, outside = (
        max(recorded, math.ceil(least_inside)),
        max(recorded_outside, math.ceil(least_outside)),
    )
    findings = _beyond_budget(outside, inside, row)
    for least, level, place in (
        (max(least_inside, least_outside), recorded, "anywhere"),
        (least_outside, recorded_outside, "outside faces"),
    ):
        if least > level:
            findings.append(
                f"changed before coding by at least {least:.1f} levels, the manifest says at most "
                f"{level} {place}"
            )
    largest = _largest(np.abs(coded.astype(np.int16) - protected.astype(np.int16)))
    if row.coded_change_levels is not None and largest != row.coded_change_levels:
        findings.append(
            f"largest change is {largest} levels beside the original coded the same way, the "
            f"manifest says {row.coded_change_levels}"
        )
    return findings


def visibility_findings(original: Image, protected: Image, row: ManifestRow) -> list[str]:
    """Whether faces keep the looks that the row says, in JOD at twice their size.

    One at a time, since the measure holds state.

    Args:
        original: Upright pixels as the worker decoded them.
        protected: Pixels of the published file, of the same size.
        row: Its manifest row.
    """
    recorded = row.face_visibility_jod
    if recorded is None or not row.faces or original.shape != protected.shape:
        return []
    from dladiff.visible_difference import worst_face_jod
    from pipeline.worker.result_rows import face_of

    faces = [face_of(face) for face in row.faces]
    with _ONE_AT_A_TIME:
        jod = worst_face_jod(original, protected, faces, "cpu")
    if jod is None or jod >= recorded - _JOD_TOLERANCE:
        return []
    return [f"a face keeps {jod:.2f} JOD at twice its size, the manifest says {recorded:.2f}"]


def face_mask(shape: tuple[int, ...], faces: Sequence[FaceColumn]) -> NDArray[np.bool_]:
    """True inside the mask extents of the faces, shape (height, width)."""
    mask = np.zeros(shape, dtype=np.bool_)
    for face in faces:
        if face.mask_extent:
            left, top, right, bottom = (max(0, edge) for edge in face.mask_extent)
            mask[top:bottom, left:right] = True
    return mask


def _beyond_budget(outside: int, inside: int, row: ManifestRow) -> list[str]:
    """Largest changes in 8-bit levels against the row's budgets."""
    allowed_outside = _allowed(row.epsilon_finetune_levels)
    allowed_inside = _allowed(row.epsilon_finetune_levels, row.epsilon_zeroshot_levels)
    findings = []
    if outside > allowed_outside:
        findings.append(f"changed by {outside} levels outside faces, {allowed_outside} allowed")
    if inside > allowed_inside:
        findings.append(f"changed by {inside} levels inside faces, {allowed_inside} allowed")
    return findings


def _allowed(*budgets_levels: float | None) -> int:
    """Whole levels that a budget allows after rounding to 8 bits."""
    return math.floor(sum(budget or 0.0 for budget in budgets_levels) + 0.5)


def _largest(change: NDArray[np.int16]) -> int:
    return int(change.max(initial=0))


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
