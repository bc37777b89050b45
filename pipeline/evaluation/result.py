"""The shown side of a result: facts in words, visibility, sheets of faces.

Reads OUT and the clean photos. People are numbers here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.curves import CurvePoint
from pipeline.evaluation.families import Standing
from pipeline.evaluation.page import PageContent, Sheet, make_page
from pipeline.evaluation.people import CLEAN, PhotoFile
from pipeline.evaluation.plan import EvaluationPlan, PlannedRow
from pipeline.evaluation.records import read_images, read_record
from pipeline.evaluation.rows import Tables
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.summary import Line, mean_of_known
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.storage.store import Store, read_uri

MAX_PEOPLE_SHOWN = 2
MAX_FACES_SHOWN = 8
_FACE_SIDE = 128

JOD = "face_visibility_jod"
Visibility = dict[str, dict[str, float | None]]


def facts(
    plan: EvaluationPlan,
    settings: EvaluationSettings,
    standings: Mapping[str, Standing],
    tables: Tables,
) -> list[tuple[str, str]]:
    """What was evaluated, in words and numbers."""
    trained = sorted({len(person.conditions[CLEAN]) for person in plan.people})
    own = sum(person.own_reference for person in plan.people)
    told = {
        "outside every loss": [n for n, of in standings.items() if not of.kin_of_loss],
        "in no loss, but kin of one": [
            n for n, of in standings.items() if of.kin_of_loss and not of.in_loss
        ],
        "in a loss": [n for n, of in standings.items() if of.in_loss],
    }
    reasons = Counter(
        (row.reason or "").partition(":")[0] for row in tables.attacks if row.status == "failed"
    )
    rows = [
        ("people", f"{len(plan.people)}" + (" (no intervals)" if len(plan.people) == 1 else "")),
        ("photos attacked per person", " to ".join(str(n) for n in {trained[0], trained[-1]})),
        (
            "clean reference",
            "photos that were not attacked"
            if not own
            else f"for {own} of {len(plan.people)} people the attacked photos' own originals, "
            "since fewer than two others are there: likeness to these very pictures",
        ),
        ("checkpoint", settings.checkpoint),
        ("generated images per stop", str(settings.num_images)),
    ]
    rows += [(f"judges {where}", ", ".join(names) or "none") for where, names in told.items()]
    if settings.changes:
        rows.append(("attack settings changed", str(settings.changes)))
    if "zero_shot" in settings.attacks and len(plan.people) == 1:
        rows.append(("floor of zero_shot", "the model without adapter: there is no other person"))
    rows += [(f"attacks not done, {reason}", str(number)) for reason, number in reasons.items()]
    return rows


def visibility_of(out: Store, plan: EvaluationPlan) -> Visibility:
    """What the change costs the eye by condition: means, medians of three, and the worst of two."""
    visibility: Visibility = {}
    for condition in plan.conditions:
        cells = [cell for (_, name), of in plan.changes.items() if name == condition for cell in of]
        records = [record for cell in cells if (record := read_record(out, cell)) is not None]
        if records:
            visibility[condition] = {
                name: mean_of_known([record.get(name) for record in records])
                for name in ("psnr_db", "ssim", "lpips", JOD)
            }
            for name in ("psnr_db", "lpips", JOD):
                known = [record[name] for record in records if record.get(name) is not None]
                visibility[condition][f"{name}_median"] = median(known) if known else None
            jods = [record[JOD] for record in records if record.get(JOD) is not None]
            visibility[condition][f"{JOD}_worst"] = min(jods, default=None)
            largest = max(record["max_change_levels"] for record in records)
            visibility[condition]["max_change_levels"] = float(largest)
    return visibility


def evaluation_page(
    out: Store,
    plan: EvaluationPlan,
    tables: Tables,
    lines: Sequence[Line],
    visibility: Visibility,
    notes: Sequence[tuple[str, str]],
    curves: Sequence[CurvePoint],
) -> str:
    """The page, with faces of the first people."""
    shown = plan.people[:MAX_PEOPLE_SHOWN]
    left_out = len(plan.people) - len(shown)
    return make_page(
        PageContent(
            facts=notes,
            visibility=list(visibility.items()),
            lines=lines,
            curves=curves,
            sheets=[
                (f"person {number}", _sheets(out, plan, tables, person.identity))
                for number, person in enumerate(shown, 1)
            ],
            notes=[f"Faces of {len(shown)} people are shown, {left_out} more were measured."]
            if left_out
            else [],
        )
    )


def _sheets(out: Store, plan: EvaluationPlan, tables: Tables, identity: str) -> list[Sheet]:
    """The clean reference, then what each attack generated at the stop that counts."""
    person = next(person for person in plan.people if person.identity == identity)
    sheets = [Sheet("clean reference", [_thumbnail(p) for p in person.reference[:MAX_FACES_SHOWN]])]
    best = {row.cell: row.num_steps or 0 for row in tables.attacks if row.status == "done"}
    for row in plan.rows:
        if row.identity == identity and row.cell.key in best:
            images = _images_at(out, row, best[row.cell.key])
            title = f"{row.attack}, {row.handling}, trained on {row.condition} photos"
            sheets.append(Sheet(title, [_square(image) for image in images[:MAX_FACES_SHOWN]]))
    return sheets


def _images_at(out: Store, row: PlannedRow, num_steps: int) -> list[NDArray[np.uint8]]:
    record: Mapping[str, Any] = read_record(out, row.cell) or {}
    stops: list[int] = record["stops"]
    return read_images(out, row.cell, len(stops))[stops.index(num_steps)]


def _thumbnail(photo: PhotoFile) -> NDArray[np.uint8]:
    return _square(decode_photo(read_uri(photo.uri), PhotoLimits()).image)


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square of an image at the size of a thumbnail."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    part = np.ascontiguousarray(image[top : top + side, left : left + side])
    resized = cv2.resize(part, (_FACE_SIDE, _FACE_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)
