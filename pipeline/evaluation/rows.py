"""Records of cells -> the rows of a result: one per attack, one per generated image.

The columns are a contract. An attack's best stop counts, as an attacker would keep it: the one
that leaks most by the mean of the judges that were in no loss (of all, where all were).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dladiff.evaluation.scores import face_detection_rate, identity_score, leak
from pipeline.evaluation.families import Standing
from pipeline.evaluation.plan import EvaluationPlan, PlannedRow
from pipeline.evaluation.records import Shelf, read_record

SCORE_FIELDS = [
    ("judge", pa.string()),
    ("family", pa.string()),
    ("in_loss", pa.bool_()),
    ("kin_of_loss", pa.bool_()),
    ("leak", pa.float64()),
    ("identity_score", pa.float64()),
    ("leak_smoothed", pa.float64()),
    ("floor", pa.float64()),
    ("floor_smoothed", pa.float64()),
]
ATTACKS_SCHEMA = pa.schema(
    [
        ("identity", pa.string()),
        ("attack", pa.string()),
        ("handling", pa.string()),
        ("condition", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("num_photos", pa.int32()),
        ("num_images", pa.int32()),
        ("num_steps", pa.int32()),
        ("face_detection_rate", pa.float64()),
        ("face_detection_rate_smoothed", pa.float64()),
        ("kid", pa.float64()),
        ("seconds", pa.float64()),
        ("cpu_seconds", pa.float64()),
        ("cell", pa.string()),
        ("scores", pa.list_(pa.struct(SCORE_FIELDS))),
    ]
)
"""One row per attack; ``status`` is done or failed, ``num_steps`` is of the stop that counts."""
IMAGES_SCHEMA = pa.schema(
    [
        ("identity", pa.string()),
        ("attack", pa.string()),
        ("handling", pa.string()),
        ("condition", pa.string()),
        ("num_steps", pa.int32()),
        ("counts", pa.bool_()),
        ("image", pa.int32()),
        ("face_found", pa.bool_()),
        ("face_found_smoothed", pa.bool_()),
        (
            "cosines",
            pa.list_(
                pa.struct(
                    [
                        ("judge", pa.string()),
                        ("cosine", pa.float64()),
                        ("cosine_smoothed", pa.float64()),
                    ]
                )
            ),
        ),
    ]
)
"""One row per generated image and stop; ``counts``: of the stop that counts."""


@dataclass(frozen=True, kw_only=True)
class JudgeScore:
    """What one judge says of an attack; see ``dladiff.evaluation.scores``."""

    judge: str
    family: str = ""
    in_loss: bool = False
    kin_of_loss: bool = False
    leak: float = 0.0
    identity_score: float = 0.0
    leak_smoothed: float = 0.0
    floor: float = 0.0
    floor_smoothed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One row of ``attacks.parquet``; of an attack that failed most is not known."""

    identity: str
    attack: str
    handling: str
    condition: str
    status: Literal["done", "failed"]
    cell: str = ""
    reason: str | None = None
    num_photos: int | None = None
    num_images: int | None = None
    num_steps: int | None = None
    """Steps of the stop that counts."""
    face_detection_rate: float | None = None
    face_detection_rate_smoothed: float | None = None
    kid: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    scores: tuple[JudgeScore, ...] = ()

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> "AttackRow":
        """A row as a file has it; what an older one lacks is as above."""
        known = _known(cls, columns)
        scores = tuple(JudgeScore(**_known(JudgeScore, one)) for one in known.pop("scores", ()))
        return cls(**known, scores=scores)


@dataclass(frozen=True, kw_only=True)
class ImageCosine:
    """What one judge sees in a generated image."""

    judge: str
    cosine: float
    cosine_smoothed: float


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One row of ``images.parquet``."""

    identity: str
    attack: str
    handling: str
    condition: str
    num_steps: int
    counts: bool
    image: int
    face_found: bool
    face_found_smoothed: bool
    cosines: tuple[ImageCosine, ...]


def _known(kind: type[Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in columns.items() if name in names and value is not None}


@dataclass
class Tables:
    """The result as rows."""

    attacks: list[AttackRow] = field(default_factory=list)
    images: list[ImageRow] = field(default_factory=list)


def make_tables(
    out: Shelf,
    plan: EvaluationPlan,
    standings: Mapping[str, Standing],
    reasons: Mapping[str, str],
) -> Tables:
    """Reads what the cells left.

    Args:
        out: Where they lie.
        plan: Whose rows.
        standings: Of every judge, by name.
        reasons: By cell key, why it could not be done.
    """
    tables = Tables()
    for row in plan.rows:
        parts = [read_record(out, cell) for cell in (row.cell, row.measure, row.floor)]
        if any(part is None for part in parts):
            keys = (row.cell.key, row.measure.key, row.floor.key)
            reason = next((reasons[key] for key in keys if key in reasons), "not_done: interrupted")
            tables.attacks.append(
                AttackRow(**_named(row), cell=row.cell.key, status="failed", reason=reason)
            )
            continue
        attack, measure, floor = (part or {} for part in parts)
        best = _best_stop(measure["stops"], standings)
        tables.attacks.append(_attack_row(row, attack, measure["stops"][best], floor, standings))
        for index, stop in enumerate(measure["stops"]):
            tables.images += _image_rows(row, stop, index == best)
    return tables


def _named(row: PlannedRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("identity", "attack", "handling", "condition")}


def _best_stop(stops: Sequence[dict[str, Any]], standings: Mapping[str, Standing]) -> int:
    def mean_leak(stop: dict[str, Any]) -> float:
        cosines = stop["as_made"]["cosines"]
        judges = [name for name in cosines if not standings[name].in_loss] or list(cosines)
        return float(np.mean([np.mean(cosines[name]) for name in judges]))

    return max(range(len(stops)), key=lambda index: mean_leak(stops[index]))


def _attack_row(
    row: PlannedRow,
    attack: dict[str, Any],
    stop: dict[str, Any],
    floor: dict[str, Any],
    standings: Mapping[str, Standing],
) -> AttackRow:
    made, smooth = stop["as_made"], stop["smoothed"]
    of_floor = floor["stops"][-1]
    found = np.array(made["found"])
    scores = [
        JudgeScore(
            judge=judge,
            **asdict(standings[judge]),
            leak=leak(_array(cosines)),
            identity_score=identity_score(_array(cosines), found),
            leak_smoothed=leak(_array(smooth["cosines"][judge])),
            floor=leak(_array(of_floor["as_made"]["cosines"][judge])),
            floor_smoothed=leak(_array(of_floor["smoothed"]["cosines"][judge])),
        )
        for judge, cosines in made["cosines"].items()
    ]
    return AttackRow(
        **_named(row),
        cell=row.cell.key,
        status="done",
        num_photos=attack["num_photos"],
        num_images=attack["num_images"],
        num_steps=stop["num_steps"],
        face_detection_rate=face_detection_rate(found),
        face_detection_rate_smoothed=face_detection_rate(np.array(smooth["found"])),
        kid=stop["kid"],
        seconds=attack["seconds"],
        cpu_seconds=attack["cpu_seconds"],
        scores=tuple(scores),
    )


def _image_rows(row: PlannedRow, stop: dict[str, Any], counts: bool) -> list[ImageRow]:
    made, smooth = stop["as_made"], stop["smoothed"]
    return [
        ImageRow(
            **_named(row),
            num_steps=stop["num_steps"],
            counts=counts,
            image=index,
            face_found=made["found"][index],
            face_found_smoothed=smooth["found"][index],
            cosines=tuple(
                ImageCosine(
                    judge=judge,
                    cosine=cosines[index],
                    cosine_smoothed=smooth["cosines"][judge][index],
                )
                for judge, cosines in made["cosines"].items()
            ),
        )
        for index in range(len(made["found"]))
    ]


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)
