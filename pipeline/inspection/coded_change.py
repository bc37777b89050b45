"""How far pixels were changed before lossy coding, at least: as far as the file itself can tell.

The manifest's level cannot be measured on a lossy file, but a file cannot hide every larger one:
what a photo changed by at most so many levels can look like after coding is bounded. Knows pixels
and how they were coded; knows no files and no manifest.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.images.coding import Coding
from pipeline.images.files import Image

_SIDE = 8
_MCU = 16
"""Pixels a side that a JPEG codes together, at most; smoothed chroma reaches one further."""
_AREA = 32
"""Pixels a side over which other codecs' noise is averaged."""
_ROWS = 256
_ROUNDING_LEVELS = 2.0
"""Rounding of both files, from colour space to colour space and to whole levels."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_DCT = np.sqrt(2 / _SIDE) * np.cos(
    np.pi / _SIDE * np.outer(np.arange(_SIDE), np.arange(_SIDE) + 0.5)
)
_DCT[0] /= np.sqrt(2)
_REACH = np.outer(np.abs(_DCT).sum(axis=1), np.abs(_DCT).sum(axis=1))
"""How far pixels that change by one level move each coefficient, at most."""


def least_change(
    clean: Image, coded_clean: Image, protected: Image, faces: NDArray[np.bool_], coding: Coding
) -> tuple[float, float]:
    """Levels by which the protected pixels differed from the clean ones before coding, at least.

    A JPEG rounds each coefficient of luma by at most half a step of its table, so that of the
    difference of two files all beyond a step is of the pixels; and where nothing was changed, its
    blocks are equal. Other lossy codecs tell no steps: for them means of large areas are compared,
    less three times what coding did to the clean photo's. A lossless file of one channel is
    compared pixel by pixel. What a codec takes away, fine noise above all, is not seen.

    Args:
        clean: Pixels of the original.
        coded_clean: The same, coded as the file is and read back.
        protected: Pixels of the file.
        faces: True where the method may change more.
        coding: How the file is coded.

    Returns:
        Inside the faces, and outside; 0 where nothing can be said.
    """
    if coding.file_format == "JPEG" and coding.luma_steps is not None:
        slack = np.array(coding.luma_steps, np.float64).reshape(_SIDE, _SIDE) / _REACH
        parts = _by_coefficients(coded_clean, protected, faces, slack + _ROUNDING_LEVELS)
    elif coding.is_lossless:
        change = np.abs(protected.astype(np.int16) - coded_clean).max(axis=2)
        parts = iter([(change.astype(np.float64) - 1, faces, ~faces)])
    else:
        parts = iter([_by_areas(clean, coded_clean, protected, faces)])
    inside = outside = 0.0
    for least, of_faces, of_rest in parts:
        inside = max(inside, float(least[of_faces].max(initial=0)))
        outside = max(outside, float(least[of_rest].max(initial=0)))
    if coding.file_format == "JPEG" and _differ_far_away(coded_clean, protected, faces):
        outside = max(outside, 1.0)
    return inside, outside


_Part = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Least change of each place, and which places may lie in faces, and which lie outside for sure."""


def _by_coefficients(
    coded_clean: Image, protected: Image, faces: NDArray[np.bool_], slack: NDArray[np.float64]
) -> Iterator[_Part]:
    height, width = (side // _SIDE * _SIDE for side in faces.shape)
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        first, second = coded_clean[rows, :width], protected[rows, :width]
        change = _in_blocks((second.astype(np.float32) - first) @ _LUMA, _SIDE)
        coefficients = np.einsum("ki,yxij,lj->yxkl", _DCT, change, _DCT, optimize=True)
        least = (np.abs(coefficients) / _REACH - slack).max(axis=(2, 3))
        # A value at an end of its range was perhaps cut off there, by any amount.
        ends = (first == 0) | (first == 255) | (second == 0) | (second == 255)
        least[_in_blocks(ends.any(axis=2), _SIDE).any(axis=(2, 3))] = 0
        in_faces = np.asarray(_in_blocks(faces[rows, :width], _SIDE).any(axis=(2, 3)))
        yield least, in_faces, np.logical_not(in_faces)


def _differ_far_away(first: Image, second: Image, faces: NDArray[np.bool_]) -> bool:
    """Whether two JPEG of one coding differ where no coded block comes near a face."""
    height, width = (side // _MCU * _MCU for side in faces.shape)
    near = _in_blocks(faces[:height, :width], _MCU).any(axis=(2, 3))
    near = np.pad(near, 1)
    rows, columns = near.shape
    around = [near[y : rows - 2 + y, x : columns - 2 + x] for y in range(3) for x in range(3)]
    differ = (first[:height, :width] != second[:height, :width]).any(axis=2)
    far = ~np.logical_or.reduce(around)
    return bool((_in_blocks(differ, _MCU).any(axis=(2, 3)) & far).any())


def _by_areas(
    clean: Image, coded_clean: Image, protected: Image, faces: NDArray[np.bool_]
) -> _Part:
    height, width = (side // _AREA * _AREA for side in faces.shape)

    def means(image: Image) -> NDArray[np.float64]:
        cut = image[:height, :width]
        parts = cut.reshape(height // _AREA, _AREA, width // _AREA, _AREA, 3)
        return np.asarray(parts.mean(axis=(1, 3)))

    before = means(coded_clean)
    noise = np.abs(before - means(clean)).max(initial=0)
    least = np.abs(means(protected) - before).max(axis=2) - 3 * noise - _ROUNDING_LEVELS
    in_faces = np.asarray(_in_blocks(faces[:height, :width], _AREA).any(axis=(2, 3)))
    return least, in_faces, np.logical_not(in_faces)


def _in_blocks(values: NDArray, side: int) -> NDArray:  # type: ignore[type-arg]
    """(height, width) -> (rows of blocks, columns of blocks, side, side)."""
    height, width = values.shape
    parts = values.reshape(height // side, side, width // side, side)
    return parts.transpose(0, 2, 1, 3)
