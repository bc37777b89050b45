"""A look through an autoencoder: what judges still see of clean and protected photos, no attack.

Work is kept photo by photo below OUT, so a look that was stopped goes on. Only numbers are kept.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from dladiff.accelerator import best_device
from dladiff.evaluation.scores import Score, auc, bootstrap
from dladiff.evaluation.settings import HANDLINGS, PURIFICATIONS, HandlingName
from dladiff.evaluation.through import load_round_trip
from pipeline.catalog.folder import check_paths
from pipeline.errors import ConfigurationError
from pipeline.evaluation.cells import (
    LookCell,
    encoders_digest,
    file_digest,
    folder_digest,
    look_cell,
)
from pipeline.evaluation.families import Standing, standings
from pipeline.evaluation.people import CLEAN, PROTECTED, Person, find_people
from pipeline.evaluation.protection import encoders_in_loss, require_remover
from pipeline.evaluation.records import read_record
from pipeline.evaluation.run import do_cells, parquet_bytes
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.worker import do_look
from pipeline.evaluation.workers import OpenWorkers, Workers
from pipeline.options import EXIT_DONE, EXIT_FAILURES, EXIT_UNFINISHED
from pipeline.storage.access import require_writable
from pipeline.storage.store import open_store

SIZES: tuple[int | None, ...] = (None, 256, 512)
"""Short sides in pixels at which photos are looked at; None: as they come."""
HANDLINGS_OF_A_LOOK: tuple[HandlingName, ...] = tuple(
    name for name in HANDLINGS if name not in (*PURIFICATIONS, "clean_mix")
)
"""Handlings of single photos that need no checkpoint."""
TABLE_FILE, SUMMARY_FILE = "through.parquet", "through.json"
LOOK_SCHEMA = pa.schema(
    [
        ("identity", pa.string()),
        ("condition", pa.string()),
        ("photo", pa.int32()),
        ("short_side", pa.int32()),
        ("handling", pa.string()),
        ("judge", pa.string()),
        ("family", pa.string()),
        ("in_loss", pa.bool_()),
        ("kin_of_loss", pa.bool_()),
        ("face_found", pa.bool_()),
        ("cosine_published", pa.float64()),
        ("cosine", pa.float64()),
    ]
)
"""One row per photo, size, handling and judge; ``short_side`` is null at the photo's own size."""


@dataclass(frozen=True)
class LookRow:
    """What one judge sees of one photo; the columns of ``LOOK_SCHEMA``."""

    identity: str
    condition: str
    photo: int
    short_side: int | None
    handling: str
    judge: str
    family: str
    in_loss: bool
    kin_of_loss: bool
    face_found: bool
    cosine_published: float
    cosine: float


@dataclass(frozen=True)
class LookLine:
    """What is seen at one size, under one handling, in one condition, by one judge."""

    short_side: int | None
    handling: str
    condition: str
    judge: str
    in_loss: bool
    kin_of_loss: bool
    published: float
    """Mean cosine before the autoencoder."""
    through: Score
    """Mean cosine after it, over people."""
    face_detection_rate: float


@dataclass(frozen=True)
class LookOutcome:
    """How a look ended."""

    exit_code: int
    lines: Sequence[LookLine]
    num_people: int
    num_photos: int
    reasons: Sequence[str]
    """Reasons of photos that could not be looked at; names nobody."""
    out_uri: str
    detection_auc: Mapping[str, float]
    """AUC by condition, see ``detection_aucs``; empty without a remover."""


def run_look(
    clean_uri: str,
    protected_uri: str,
    out_uri: str,
    folder: Path,
    settings: EvaluationSettings,
    open_workers: OpenWorkers,
    also: Mapping[str, str] | None = None,
) -> LookOutcome:
    """Looks at photos of CLEAN and their protected ones, before and after an autoencoder.

    A photo is compared with the person's clean photos that are not protected; where they are too
    few, with the person's other clean photos, never with itself unless it is the only one.

    Args:
        clean_uri: Folder or bucket with ``<identity>/<photo>``.
        protected_uri: The same with protected photos, or a run's OUTPUT.
        out_uri: Where the numbers go; what it holds already is not redone.
        folder: Of the autoencoder, see ``load_round_trip``.
        settings: Handlings, judges, people and photos of each.
        open_workers: Opens workers for so many photos.
        also: More protected trees by the name of their condition.

    Raises:
        ConfigurationError: Refused before any work.
        ModelError: If there is no such autoencoder.
    """
    clean_uri, out_uri = check_paths(clean_uri, out_uri)
    check_paths(protected_uri, out_uri)
    refused = [name for name in settings.handlings if name not in HANDLINGS_OF_A_LOOK]
    if refused:
        raise ConfigurationError(
            f"--through looks at single photos and cannot do {', '.join(refused)}: choose of "
            f"{', '.join(HANDLINGS_OF_A_LOOK)}"
        )
    load_round_trip(folder, "cpu")
    require_remover(settings)
    trees = {PROTECTED: protected_uri, **(also or {})}
    in_loss = dict.fromkeys(settings.in_loss, "") | encoders_in_loss(trees.values())
    standing = standings(settings.judges, in_loss, settings.judge_families)
    people = find_people(clean_uri, trees, settings)
    out = open_store(out_uri)
    require_writable(out, "OUT")
    cells = _cells(people, settings, folder)
    todo = [cell for _, _, cell in cells if read_record(out, cell) is None]
    reasons, interrupted = do_cells(
        out, {"photos": todo}, settings, open_workers, partial(do_look, folder)
    )
    rows = [
        row
        for identity, condition, cell in cells
        for row in _rows(identity, condition, cell, read_record(out, cell), standing)
    ]
    lines = look_lines(rows)
    detection = detection_aucs(
        [(condition, read_record(out, cell)) for _, condition, cell in cells]
    )
    num_photos = sum(condition == CLEAN for _, condition, _ in cells)
    out.write(TABLE_FILE, parquet_bytes(map(asdict, rows), LOOK_SCHEMA))
    facts = {
        "autoencoder": folder.name,
        "people": len(people),
        "photos": num_photos,
        "photos_left_out": len(reasons),
        "judges": {name: asdict(of) for name, of in standing.items()},
        "in_loss_known": bool(in_loss),
        "detection_auc": detection,
        "lines": [asdict(line) for line in lines],
    }
    out.write(SUMMARY_FILE, json.dumps(facts, indent=1).encode())
    code = EXIT_UNFINISHED if interrupted else EXIT_FAILURES if reasons else EXIT_DONE
    return LookOutcome(
        code, lines, len(people), num_photos, sorted(set(reasons.values())), out.uri, detection
    )


@contextmanager
def in_this_process(threads: int, num_cells: int) -> Iterator[Workers]:
    """Does a look right here, which needs no start of a cluster."""
    del num_cells
    device = str(best_device())
    yield Workers(device, threads, lambda do, tasks: ((task, do(task)) for task in tasks))


def _cells(
    people: Sequence[Person], settings: EvaluationSettings, folder: Path
) -> list[tuple[str, str, LookCell]]:
    """Identity and condition of every photo, and the cell that looks at it."""
    digests: tuple[str, ...] = (folder_digest(folder), encoders_digest(settings.judges))
    if settings.remover is not None:
        digests += (file_digest(Path(settings.remover)),)
    found = []
    for person in people:
        for condition, photos in person.conditions.items():
            pairs = zip(photos, person.conditions[CLEAN], strict=True)
            for number, (photo, clean) in enumerate(pairs, 1):
                others = tuple(one for one in person.reference if one.sha256 != clean.sha256)
                reference = others or person.reference
                cell = look_cell(
                    number, photo, clean, reference, settings.handlings, SIZES, digests
                )
                found.append((person.identity, condition, cell))
    return found


def _rows(
    identity: str,
    condition: str,
    cell: LookCell,
    record: Mapping[str, Any] | None,
    standing: Mapping[str, Standing],
) -> Iterator[LookRow]:
    for look in (record or {}).get("looks", ()):
        for judge, cosine in look["through"].items():
            yield LookRow(
                identity=identity,
                condition=condition,
                photo=cell.number,
                short_side=look["short_side"],
                handling=look["handling"],
                judge=judge,
                **asdict(standing[judge]),
                face_found=look["face_found"],
                cosine_published=look["published"][judge],
                cosine=cosine,
            )


def look_lines(rows: Sequence[LookRow]) -> list[LookLine]:
    """Means over people of every judge, each on a scale of its own.

    No headline over judges: their cosines of strangers differ too much to be put side by side.
    Only photos that were looked at in every condition count, so conditions rest on the same ones.
    """
    groups: dict[tuple[int | None, str, str], list[LookRow]] = {}
    for row in _in_every_condition(rows):
        key = (row.short_side, row.handling, row.condition)
        groups.setdefault(key, []).append(row)
    lines = []
    for (side, handling, condition), of_group in groups.items():
        for judge in dict.fromkeys(row.judge for row in of_group):
            of_judge = [row for row in of_group if row.judge == judge]
            lines.append(_line(side, handling, condition, judge, of_judge))
    return lines


def detection_aucs(
    records: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> dict[str, float]:
    """How well each condition's photos are told from clean ones by what a remover takes away.

    Args:
        records: Condition and record of every photo; None where it could not be looked at.

    Returns:
        The AUC by condition: 0.5 is by guessing, 1 without error. Empty where no remover was at
        work.
    """
    levels: dict[str, list[float]] = {}
    for condition, record in records:
        removed = (record or {}).get("removed_levels")
        if removed is not None:
            levels.setdefault(condition, []).append(removed)
    clean = levels.pop(CLEAN, [])
    return {condition: auc(found, clean) for condition, found in levels.items() if clean}


def _in_every_condition(rows: Sequence[LookRow]) -> list[LookRow]:
    conditions = {row.condition for row in rows}
    seen: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        seen.setdefault((row.identity, row.photo), set()).add(row.condition)
    return [row for row in rows if seen[row.identity, row.photo] == conditions]


def _line(
    side: int | None, handling: str, condition: str, judge: str, rows: Sequence[LookRow]
) -> LookLine:
    people = list(dict.fromkeys(row.identity for row in rows))
    through = [fmean(row.cosine for row in rows if row.identity == who) for who in people]
    published = [
        fmean(row.cosine_published for row in rows if row.identity == who) for who in people
    ]
    return LookLine(
        short_side=side,
        handling=handling,
        condition=condition,
        judge=judge,
        in_loss=any(row.in_loss for row in rows),
        kin_of_loss=any(row.kin_of_loss for row in rows),
        published=fmean(published),
        through=bootstrap(lambda cosines: cosines.mean(axis=-1), np.array(through)),
        face_detection_rate=fmean(row.face_found for row in rows),
    )
