"""Plots as SVG text: effects with their intervals. Knows numbers and labels only."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

_LEFT, _WIDTH, _ROW, _TOP, _BOTTOM = 260, 760, 26, 10, 34
_LOW, _HIGH = -0.25, 1.25
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class PlotRow:
    """One line of a plot: a value with its interval, and single values beside it."""

    label: str
    value: float
    low: float | None
    high: float | None
    others: Sequence[tuple[str, float]] = ()
    """Further values by what they are, shown as rings; the name appears on hovering."""


def interval_plot(rows: Sequence[PlotRow], axis: str) -> str:
    """Values from 0 (nothing) to 1 (back at the floor), one row each, as an SVG element.

    Values beyond the axis are drawn at its ends.
    """
    height = _TOP + _ROW * len(rows) + _BOTTOM
    bottom = _TOP + _ROW * len(rows)
    parts = [
        f'<svg role="img" viewBox="0 0 {_LEFT + _WIDTH} {height}" '
        f'width="{_LEFT + _WIDTH}" height="{height}" xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in _TICKS:
        x = _x(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 14}">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{_x(0.5)}" y="{bottom + 30}">{html.escape(axis)}</text>')
    for index, row in enumerate(rows):
        parts += _row(row, _TOP + _ROW * index + _ROW / 2)
    return "\n".join([*parts, "</svg>"])


def _row(row: PlotRow, y: float) -> list[str]:
    parts = [f'<text class="label" x="{_LEFT - 12}" y="{y + 4}">{html.escape(row.label)}</text>']
    if row.low is not None and row.high is not None:
        low, high = _x(row.low), _x(row.high)
        parts.append(f'<line class="interval" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>')
    for name, value in row.others:
        title = html.escape(f"{name}: {value:.2f}")
        parts.append(
            f'<circle class="other" cx="{_x(value)}" cy="{y}" r="4"><title>{title}</title></circle>'
        )
    parts.append(
        f'<circle class="value" cx="{_x(row.value)}" cy="{y}" r="5">'
        f"<title>{row.value:.2f}</title></circle>"
    )
    return parts


def _x(value: float) -> float:
    inside = min(max(value, _LOW), _HIGH)
    return round(_LEFT + (inside - _LOW) / (_HIGH - _LOW) * (_WIDTH - 20), 1)
