"""One cell of an evaluation, done in whatever process it lands in.

Knows cells and OUT. Knows no Ray and no plan.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dladiff.errors import DladiffError
from pipeline.evaluation.attacking import attack
from pipeline.evaluation.cells import AttackCell, Cell, CellOfAttacks, LookCell, MeasureCell
from pipeline.evaluation.looking import look_at
from pipeline.evaluation.measuring import measure, measure_change
from pipeline.evaluation.records import MemoryShelf, Shelf, read_record, write_record
from pipeline.evaluation.workplace import Workplace
from pipeline.storage.store import open_store


@dataclass(frozen=True)
class CellOutcome:
    """What the driver learns of a cell."""

    seconds: float
    reason: str | None = None
    """Why it could not be done; None: it is done."""


def do_cell(workplace: Workplace, cell: CellOfAttacks) -> CellOutcome:
    """Does a cell unless it is done; a cell that cannot be done says why and harms no other."""
    return _do_on(open_store(workplace.out_uri), workplace, cell)


def do_look(folder: Path, workplace: Workplace, cell: LookCell) -> CellOutcome:
    """Does a cell as ``do_cell`` does; ``folder`` holds the autoencoder."""
    out = open_store(workplace.out_uri)
    return _keep(out, workplace, cell, lambda: look_at(folder, workplace, cell))


def do_in_memory(
    workplace: Workplace, cells: Sequence[CellOfAttacks]
) -> dict[str, dict[str, Any] | str]:
    """Does cells one after the other and leaves nothing: images are dropped, numbers come back.

    Args:
        workplace: ``out_uri`` is not used.
        cells: Each after those that it needs.

    Returns:
        By cell key its record, or why it could not be done.
    """
    shelf = MemoryShelf()
    found: dict[str, dict[str, Any] | str] = {}
    for cell in cells:
        outcome = _do_on(shelf, workplace, cell)
        found[cell.key] = read_record(shelf, cell) or outcome.reason or "not_done: no record"
    return found


def _do_on(out: Shelf, workplace: Workplace, cell: CellOfAttacks) -> CellOutcome:
    def record() -> dict[str, Any]:
        if isinstance(cell, AttackCell):
            return attack(out, workplace, cell)
        if isinstance(cell, MeasureCell):
            return measure(out, workplace, cell)
        return measure_change(workplace, cell)

    return _keep(out, workplace, cell, record)


def _keep(
    out: Shelf, workplace: Workplace, cell: Cell, record: Callable[[], dict[str, Any]]
) -> CellOutcome:
    started = time.monotonic()
    torch.set_num_threads(workplace.threads)
    try:
        if read_record(out, cell) is None:
            write_record(out, cell, record())
    except (DladiffError, ValueError) as error:
        return CellOutcome(time.monotonic() - started, str(error))
    return CellOutcome(time.monotonic() - started)
