"""Plots of an evaluation as SVG, drawn by matplotlib. Knows numbers and labels only."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation.curves import CurvePoint

_LOW, _HIGH = -0.25, 1.25
"""Ends of an axis of effects; what lies beyond is drawn there."""
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "#dddddd",
    "svg.fonttype": "none",
    "svg.hashsalt": "dladiff",
    "text.parse_math": False,
}
"""Text stays text, and equal numbers give equal bytes."""


@dataclass(frozen=True)
class PlotRow:
    """One line of a plot: a value with its interval, and single values beside it."""

    label: str
    value: float
    low: float | None
    high: float | None
    others: Sequence[float] = ()
    """Further values, shown as rings."""


def interval_plot(rows: Sequence[PlotRow], axis: str) -> str:
    """Values from 0 (nothing) to 1 (back at the floor), one row each."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 0.7 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                ends = [_inside(row.low), _inside(row.high)]
                axes.plot(ends, [place, place], color="C0", linewidth=3, gid="interval")
            rings = [_inside(one) for one in row.others]
            axes.plot(rings, [place] * len(rings), "o", color="grey", fillstyle="none", gid="other")
            axes.plot(_inside(row.value), place, "o", color="C0", gid="value")
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set(xlim=(_LOW, _HIGH), ylim=(max(1, len(rows)) - 0.5, -0.5), xlabel=axis)
        return _svg(figure)


AXES: Sequence[tuple[str, Callable[[CurvePoint], float | None]]] = (
    ("JOD of faces at twice their size, median", lambda point: point.face_visibility_jod),
    ("LPIPS, median", lambda point: point.lpips),
    ("PSNR in dB, median", lambda point: point.psnr_db),
    ("CPU seconds a photo", lambda point: point.cpu_seconds),
)


def curve_plots(points: Sequence[CurvePoint]) -> list[str]:
    """A plot for each of ``AXES`` that at least two points have a value on.

    Filled: the headline, joined along one method; rings: the mean of the families.
    """
    plots = []
    for label, of_point in AXES:
        placed = [
            (x, point)
            for point in points
            if (x := of_point(point)) is not None and math.isfinite(point.effect)
        ]
        if len(placed) >= 2:
            plots.append(_curve_plot(sorted(placed, key=lambda pair: pair[0]), label))
    return plots


def _curve_plot(placed: Sequence[tuple[float, CurvePoint]], label: str) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(dict.fromkeys(point.method for _, point in placed)):
            own = [(x, point) for x, point in placed if point.method == method]
            _curve(axes, own, f"C{number}", method)
        axes.set(ylim=(_LOW, _HIGH), xlabel=label, ylabel="effect")
        figure.legend(loc="outside right upper", frameon=False)
        return _svg(figure)


def _curve(axes: Axes, own: Sequence[tuple[float, CurvePoint]], colour: str, method: str) -> None:
    """One method's trees, each with its name."""
    places = [(x, _inside(point.effect)) for x, point in own]
    axes.plot(*zip(*places, strict=True), "o-", color=colour, label=method, gid="curve")
    for place, (x, point) in zip(places, own, strict=True):
        axes.annotate(point.condition, place, (4, 4), textcoords="offset points", fontsize=7)
        if point.effect_mean is not None and math.isfinite(point.effect_mean):
            mean = _inside(point.effect_mean)
            axes.plot(x, mean, "o", color=colour, fillstyle="none", gid="mean")


def _inside(effect: float) -> float:
    return float(np.clip(effect, _LOW, _HIGH))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
