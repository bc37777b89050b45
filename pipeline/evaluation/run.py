"""A whole evaluation on one screen: people, plan, attacks, measurements, tables, page."""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dladiff.weight_files import user_cache
from pipeline.catalog.folder import check_paths
from pipeline.evaluation.cells import Cell
from pipeline.evaluation.curves import curve_points
from pipeline.evaluation.families import Standing, standings
from pipeline.evaluation.people import PROTECTED, find_people
from pipeline.evaluation.plan import EvaluationPlan, make_plan
from pipeline.evaluation.protection import (
    checkpoint_has_template,
    cpu_seconds_of,
    encoders_in_loss,
    require_attackable,
    require_remover,
)
from pipeline.evaluation.records import read_record
from pipeline.evaluation.result import evaluation_page, facts, visibility_of
from pipeline.evaluation.rows import ATTACKS_SCHEMA, IMAGES_SCHEMA, Tables, make_tables
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.summary import Line, ResultLines, summary_json
from pipeline.evaluation.worker import CellOutcome, do_cell
from pipeline.evaluation.workers import OpenWorkers
from pipeline.evaluation.workplace import Workplace
from pipeline.interruption import RunInterrupted, interruptible
from pipeline.options import EXIT_DONE, EXIT_FAILURES, EXIT_UNFINISHED
from pipeline.reporting.words import format_count, format_duration
from pipeline.storage.access import require_writable
from pipeline.storage.store import Store, open_store


@dataclasses.dataclass(frozen=True)
class EvaluationOutcome:
    """How an evaluation ended."""

    exit_code: int
    lines: Sequence[Line]
    num_rows: int
    num_failed: int
    seconds: float
    out_uri: str


def run_evaluation(
    clean_uri: str,
    protected_uri: str,
    out_uri: str,
    settings: EvaluationSettings,
    open_workers: OpenWorkers,
    also: Mapping[str, str] | None = None,
) -> EvaluationOutcome:
    """Attacks the photos of CLEAN and their protected ones, and writes down what shows.

    Args:
        clean_uri: Folder or bucket with ``<identity>/<photo>``.
        protected_uri: The same with protected photos, or a run's OUTPUT.
        out_uri: Where cells, tables, summary and page go; what it holds already is not redone.
        settings: Attacks, handlings, judges.
        open_workers: Opens workers for so many cells; see ``workers.ray_workers``.
        also: More protected trees by the name of their condition.

    Raises:
        ConfigurationError: Refused before any work.
    """
    started = time.monotonic()
    clean_uri, out_uri = check_paths(clean_uri, out_uri)
    check_paths(protected_uri, out_uri)
    require_remover(settings)
    out = open_store(out_uri)
    require_writable(out, "OUT")
    trees = {PROTECTED: protected_uri, **(also or {})}
    in_loss = dict.fromkeys(settings.in_loss, "") | encoders_in_loss(trees.values())
    standing = standings(settings.judges, in_loss, settings.judge_families)
    require_attackable(settings)
    people = find_people(clean_uri, trees, settings)
    plan = make_plan(people, settings, checkpoint_has_template(settings))
    reasons, interrupted = _do_cells(out, plan, settings, open_workers)
    tables = make_tables(out, plan, standing, reasons)
    lines = ResultLines(tables.attacks).lines()
    _write(out, plan, settings, standing, tables, lines, trees)
    num_failed = sum(row.status != "done" for row in tables.attacks)
    code = EXIT_UNFINISHED if interrupted else EXIT_FAILURES if num_failed else EXIT_DONE
    return EvaluationOutcome(
        code, lines, len(tables.attacks), num_failed, time.monotonic() - started, out.uri
    )


def _do_cells(
    out: Store, plan: EvaluationPlan, settings: EvaluationSettings, open_workers: OpenWorkers
) -> tuple[dict[str, str], bool]:
    """Does what is not done: attacks first, then all looks at them; returns as ``do_cells``."""
    looks = {cell.key: cell for row in plan.rows for cell in (row.measure, row.floor)}
    changes = {cell.key: cell for cells in plan.changes.values() for cell in cells}
    stages = {
        "attacks": _missing(out, plan.attacks),
        "measurements": _missing(out, [*looks.values(), *changes.values()]),
    }
    _say(
        f"{format_count(len(plan.people), 'person', 'people')}, {len(plan.rows)} attacks to "
        f"report, {sum(map(len, stages.values()))} cells to do"
    )
    return do_cells(out, stages, settings, open_workers, do_cell)


def do_cells(
    out: Store,
    stages: Mapping[str, Sequence[Cell]],
    settings: EvaluationSettings,
    open_workers: OpenWorkers,
    do: Callable[[Workplace, Any], CellOutcome],
) -> tuple[dict[str, str], bool]:
    """Does cells, a stage after the other, and says how far it is.

    Returns:
        Reasons by cell key, and whether it was interrupted.
    """
    num_cells = sum(map(len, stages.values()))
    reasons: dict[str, str] = {}
    if not num_cells:
        return reasons, False
    try:
        with open_workers(num_cells) as workers, interruptible():
            place = Workplace(
                out_uri=out.uri,
                settings_json=settings.model_dump_json(),
                device=workers.device,
                threads=workers.threads,
                weights_cache=str(user_cache()),
            )
            for name, cells in stages.items():
                done = workers.do_all(partial(do, place), cells)
                for cell, outcome in _with_progress(name, done, len(cells)):
                    if outcome.reason is not None:
                        reasons[cell.key] = outcome.reason
    except RunInterrupted:
        return reasons, True
    return reasons, False


def _missing(out: Store, cells: Iterable[Cell]) -> list[Cell]:
    return [cell for cell in cells if read_record(out, cell) is None]


def _with_progress(
    name: str, outcomes: Iterator[tuple[Cell, CellOutcome]], total: int
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Says how far it is, at most every few seconds; names nobody."""
    started = said = time.monotonic()
    for done, item in enumerate(outcomes, 1):
        yield item
        now = time.monotonic()
        if now - said > 5 or done == total:
            said = now
            left = (now - started) / done * (total - done)
            _say(
                f"{name}: {done} of {total}"
                + (f", about {format_duration(left)} left" if left else "")
            )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(
    out: Store,
    plan: EvaluationPlan,
    settings: EvaluationSettings,
    standing: Mapping[str, Standing],
    tables: Tables,
    lines: Sequence[Line],
    trees: Mapping[str, str],
) -> None:
    """Tables, summary and page; the page comes last."""
    out.write(
        "attacks.parquet", parquet_bytes(map(dataclasses.asdict, tables.attacks), ATTACKS_SCHEMA)
    )
    out.write(
        "images.parquet", parquet_bytes(map(dataclasses.asdict, tables.images), IMAGES_SCHEMA)
    )
    visibility = visibility_of(out, plan)
    notes = facts(plan, settings, standing, tables)
    curves = curve_points(lines, visibility, cpu_seconds_of(trees))
    summary = summary_json(
        lines,
        visibility,
        facts=dict(notes),
        settings=settings.model_dump(mode="json"),
        judges={name: dataclasses.asdict(of) for name, of in standing.items()},
        trees=dict(trees),
        curves=[dataclasses.asdict(point) for point in curves],
    )
    out.write("summary.json", json.dumps(summary, indent=1).encode())
    page = evaluation_page(out, plan, tables, lines, visibility, notes, curves)
    out.write("page.html", page.encode())


def parquet_bytes(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*rows], schema), buffer, compression="zstd")
    return buffer.getvalue()
