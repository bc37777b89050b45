"""What a finished cell leaves behind, and where: images and numbers, never weights or embeddings.

Knows where to put things. A cell's JSON comes last, so one that is there is whole.
"""

import io
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pipeline.evaluation.cells import Cell


class Shelf(Protocol):
    """Where cells lie: OUT, or memory where nothing shall be left behind."""

    def read(self, key: str) -> bytes:
        """The object; ``FileNotFoundError`` if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Replaces the object."""


class MemoryShelf:
    """Holds what is written until it is dropped itself."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def read(self, key: str) -> bytes:
        if key not in self._objects:
            raise FileNotFoundError(key)
        return self._objects[key]

    def write(self, key: str, data: bytes) -> None:
        self._objects[key] = data


def record_key(cell: Cell) -> str:
    """Key below OUT of a cell's record."""
    return f"cells/{cell.kind}/{cell.key}.json"


def read_record(out: Shelf, cell: Cell) -> dict[str, Any] | None:
    """A cell's record, None while it is not done."""
    try:
        record = json.loads(out.read(record_key(cell)))
    except FileNotFoundError:
        return None
    return record if isinstance(record, dict) else None


def write_record(out: Shelf, cell: Cell, record: dict[str, Any]) -> None:
    """Declares a cell done."""
    out.write(record_key(cell), json.dumps(record, sort_keys=True).encode())


def write_images(out: Shelf, cell: Cell, stops: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
    """Keeps an attack's images losslessly: one PNG, a row per stop."""
    rows = [np.concatenate(images, axis=1) for images in stops]
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, "PNG")
    out.write(_images_key(cell), buffer.getvalue())


def read_images(out: Shelf, cell: Cell, num_stops: int) -> list[list[NDArray[np.uint8]]]:
    """An attack's images, by stop."""
    with PIL.Image.open(io.BytesIO(out.read(_images_key(cell)))) as picture:
        grid = np.array(picture)
    side = grid.shape[0] // num_stops
    return [
        [row[:, left : left + side] for left in range(0, row.shape[1], side)]
        for row in (grid[top : top + side] for top in range(0, grid.shape[0], side))
    ]


def _images_key(cell: Cell) -> str:
    return f"cells/{cell.kind}/{cell.key}.png"
