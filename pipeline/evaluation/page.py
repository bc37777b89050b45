"""The page of an evaluation: tables, plots, sheets of generated faces. One file, no scripts.

Knows results; people appear as numbers, photos of them do appear: the page is as private as CLEAN.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from dladiff.evaluation.scores import Score
from pipeline.evaluation.curves import CurvePoint
from pipeline.evaluation.plots import PlotRow, curve_plots, interval_plot
from pipeline.evaluation.summary import WORST, Line

_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Sheet:
    """Faces of one kind in a row."""

    title: str
    images: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class PageContent:
    """All that the page shows."""

    facts: Sequence[tuple[str, str]]
    """Name and value of what was evaluated, in words."""
    visibility: Sequence[tuple[str, dict[str, float | None]]]
    """What the change costs the eye, by condition: PSNR, SSIM, LPIPS and largest change."""
    lines: Sequence[Line]
    curves: Sequence[CurvePoint]
    """One per attack, handling and condition; plotted where there are several conditions."""
    sheets: Sequence[tuple[str, Sequence[Sheet]]]
    """Rows of faces, by person (``person 1``)."""
    notes: Sequence[str]


@dataclass(frozen=True)
class _Attack:
    """What the page shows of one attack."""

    name: str
    plot: str
    """SVG."""
    rows: Sequence[tuple[str, Sequence[str]]]
    """Kind of line, and a text per column."""
    curves: Sequence[tuple[str, Sequence[str]]]
    """SVG plots by handling; none where only one tree was attacked."""


def make_page(content: PageContent) -> str:
    """The page as HTML."""
    environment = Environment(
        autoescape=True, trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    names = list(dict.fromkeys(line.attack for line in content.lines))
    return environment.from_string(_TEMPLATE.read_text()).render(
        content=content,
        attacks=[_attack(name, content) for name in names],
        columns=[name for name, _ in _COLUMNS],
        number=number,
        jpeg=_jpeg,
        base64=lambda svg: base64.b64encode(svg.encode()).decode(),
    )


def _attack(name: str, content: PageContent) -> _Attack:
    lines = [line for line in content.lines if line.attack == name]
    points = [point for point in content.curves if point.attack == name]
    return _Attack(
        name,
        _plot(lines),
        [(_kind(line), [show(line) for _, show in _COLUMNS]) for line in lines],
        _curves(points),
    )


def _kind(line: Line) -> str:
    return "headline" if line.headline else "in-loss" if line.in_loss else ""


_COLUMNS: Sequence[tuple[str, Callable[[Line], str]]] = (
    ("handling", lambda line: line.handling),
    ("condition", lambda line: line.condition),
    ("judge", lambda line: judge_text(line)),
    ("leak, clean", lambda line: number(line.leak_clean)),
    ("leak", lambda line: number(line.leak)),
    ("floor", lambda line: number(line.floor)),
    ("ISM", lambda line: number(line.identity_score)),
    ("FDR", lambda line: number(line.face_detection_rate)),
    ("KID, clean", lambda line: number(line.kid_clean, 3)),
    ("KID", lambda line: number(line.kid, 3)),
    ("effect", lambda line: interval(line.effect)),
    ("on smoothed images", lambda line: interval(line.effect_smoothed)),
    ("retained", lambda line: number(line.retained)),
    ("behind protected by", lambda line: interval(line.behind_protected)),
    ("n", lambda line: str(line.num_people)),
)


def _curves(points: Sequence[CurvePoint]) -> list[tuple[str, list[str]]]:
    """The curves by handling; none where only one tree was attacked."""
    by_handling = [
        (handling, curve_plots([point for point in points if point.handling == handling]))
        for handling in dict.fromkeys(point.handling for point in points)
    ]
    return [(handling, plots) for handling, plots in by_handling if plots]


def judge_text(line: Line) -> str:
    """Whose word a line is, and how far that is from the losses."""
    if line.judge == WORST:
        return f"{line.judge} ({line.family})"
    if line.in_loss:
        return f"{line.judge} (in a loss)"
    # A mean over families says itself whether they are kin.
    return f"{line.judge} (kin of a loss)" if line.kin_of_loss and line.family else line.judge


def _plot(lines: Sequence[Line]) -> str:
    """One row per handling and condition: the headline judge with its interval, others as rings."""
    rows = []
    for handling, condition in dict.fromkeys((line.handling, line.condition) for line in lines):
        group = [line for line in lines if (line.handling, line.condition) == (handling, condition)]
        first, others = group[0], group[1:]
        if math.isfinite(first.effect.value):
            rows.append(
                PlotRow(
                    f"{condition}, {handling}",
                    first.effect.value,
                    first.effect.low,
                    first.effect.high,
                    [one.effect.value for one in others if math.isfinite(one.effect.value)],
                )
            )
    return interval_plot(rows, f"effect ({lines[0].judge}; rings: the others)")


def _jpeg(sheet: Sheet) -> str:
    """The row of faces as one JPEG in base64."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(sheet.images, axis=1)).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def number(value: float | None, digits: int = 2) -> str:
    """A number for a person, or a dash."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(score: Score | None) -> str:
    """A score with its interval, if there is one."""
    if score is None or not math.isfinite(score.value):
        return "-"
    if score.low is None or score.high is None:
        return number(score.value)
    return f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
