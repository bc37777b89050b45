"""The page of an evaluation: tables, plots, sheets of generated faces. One file, no scripts.

Knows results; people appear as numbers, photos of them do appear: the page is as private as CLEAN.
"""

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dladiff.evaluation.scores import Score
from pipeline.evaluation.curve_plots import curve_plots
from pipeline.evaluation.curves import CurvePoint
from pipeline.evaluation.plots import PlotRow, interval_plot
from pipeline.evaluation.summary import WORST, Line

_PRIVATE = (
    "Keep this page private: it shows photos of people and generated likenesses of them. Never "
    "publish a generated likeness of a real person."
)
_HOW_TO_READ = (
    "Leak: mean cosine of generated faces to the person's clean reference, 0 where no face was "
    "found. Floor: the same without the person. Effect: share of the leak that protection takes "
    "away, (clean - protected) / (clean - floor), under the same handling; 0 is nothing, 1 is "
    "back at the floor. KID: how far the images are from photos of the person as pictures, on "
    "AlexNet's features; no measure of protection. Intervals: 95 %, bootstrap over people. It "
    "holds for these attacks, this checkpoint and these photos, and is no promise about others."
)
_WHO_JUDGES = (
    "Judges are grouped into families that err alike. The headline is the worst family outside "
    "every loss: of those of which no member was in a loss, the one that still sees most of the "
    "person. A judge whose family has a member in a loss is kin of a loss: no independent word, "
    "yet not to be passed over. plain, mobile and convnext are small students distilled from SFace "
    "and belong to its family; they tell people apart less well (a stranger scores .17 to .21 with "
    "them, about 0 with the others) and mostly report lower effects, which may be the truth for an "
    "audience or a recogniser of their kind."
)
_CURVES = (
    "Effect against what the change shows and costs. Trees named method@budget are joined. Filled: "
    "the headline; rings: the mean of the families outside every loss. At equal visibility or "
    "equal cost, higher is better. Seconds of a run are those of its worker."
)
_STYLE = """
body { font-family: sans-serif; margin: 2rem; max-width: 80rem; color: #222; }
.warning { border: 2px solid #b00; padding: .6rem 1rem; font-weight: bold; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #ddd; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tr.headline td { font-weight: bold; } tr.in-loss td { color: #777; }
img { display: block; margin: .2rem 0 .8rem; max-width: 100%; }
svg text { font: 13px sans-serif; fill: #222; } svg .tick { text-anchor: middle; fill: #666; }
svg .label { text-anchor: end; } svg .grid { stroke: #ddd; }
svg .interval { stroke: #1668a8; stroke-width: 3; } svg .value { fill: #1668a8; }
svg .other { fill: none; stroke: #888; }
"""


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
    """By condition: PSNR, SSIM, LPIPS and largest change."""
    lines: Sequence[Line]
    curves: Sequence[CurvePoint]
    """One per attack, handling and condition; plotted where there are several conditions."""
    sheets: Sequence[tuple[str, Sequence[Sheet]]]
    """By person (``person 1``): rows of faces."""
    notes: Sequence[str]


def make_page(content: PageContent) -> str:
    """The page as HTML."""
    attacks = list(dict.fromkeys(line.attack for line in content.lines))
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>DLADiff evaluation</title><style>{_STYLE}</style></head><body>",
        "<h1>DLADiff evaluation</h1>",
        f'<p class="warning">{html.escape(_PRIVATE)}</p>',
        f"<p>{html.escape(_HOW_TO_READ)}</p>",
        f"<p>{html.escape(_WHO_JUDGES)}</p>",
        _facts(content.facts),
        *(f"<p>{html.escape(note)}</p>" for note in content.notes),
        "<h2>What the change costs the eye</h2>",
        _visibility(content.visibility),
    ]
    for attack in attacks:
        lines = [line for line in content.lines if line.attack == attack]
        parts += [f"<h2>{html.escape(attack)}</h2>", _plot(lines), _table(lines)]
        parts += _curves([point for point in content.curves if point.attack == attack])
    for person, sheets in content.sheets:
        parts.append(f"<h2>{html.escape(person)}</h2>")
        parts += [_sheet(sheet) for sheet in sheets]
    return "\n".join([*parts, "</body></html>\n"])


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    return f"<table>{rows}</table>"


def _visibility(rows: Sequence[tuple[str, dict[str, float | None]]]) -> str:
    head = "<tr><th>condition</th><th>PSNR, dB</th><th>SSIM</th><th>LPIPS</th><th>levels</th></tr>"
    body = ""
    for condition, values in rows:
        cells = "".join(
            f"<td>{number(values.get(name), digits)}</td>"
            for name, digits in (
                ("psnr_db", 1),
                ("ssim", 3),
                ("lpips", 3),
                ("max_change_levels", 0),
            )
        )
        body += f"<tr><td>{html.escape(condition)}</td>{cells}</tr>"
    return f"<table>{head}{body}</table>"


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


def _table(lines: Sequence[Line]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name, _ in _COLUMNS)
    body = ""
    for line in lines:
        kind = "headline" if line.headline else "in-loss" if line.in_loss else ""
        cells = "".join(f"<td>{html.escape(show(line))}</td>" for _, show in _COLUMNS)
        body += f'<tr class="{kind}">{cells}</tr>\n'
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _curves(points: Sequence[CurvePoint]) -> list[str]:
    """By handling; nothing where only one tree was attacked."""
    parts = []
    for handling in dict.fromkeys(point.handling for point in points):
        plots = curve_plots([point for point in points if point.handling == handling])
        if plots:
            parts += [f"<h3>curves, {html.escape(handling)}</h3>", f"<p>{_CURVES}</p>", *plots]
    return parts


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
                    [
                        (line.judge, line.effect.value)
                        for line in others
                        if math.isfinite(line.effect.value)
                    ],
                )
            )
    return interval_plot(rows, f"effect ({lines[0].judge}; rings: the others)")


def _sheet(sheet: Sheet) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(sheet.images, axis=1)).save(buffer, "JPEG", quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    title = html.escape(sheet.title)
    return f'<div>{title}<img alt="{title}" src="data:image/jpeg;base64,{encoded}"></div>'


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
