"""Effect of each method against what its trees show or cost, as SVG text. Knows points only."""

import html
import math
from collections.abc import Callable, Sequence

from pipeline.evaluation.curves import CurvePoint

_LEFT, _WIDTH, _TOP, _HEIGHT, _BOTTOM, _LEGEND = 60, 420, 14, 260, 44, 190
_LOW, _HIGH = -0.25, 1.25
_COLOURS = ("#1668a8", "#c4501b", "#2a8a3e", "#8a3a9c", "#7a6a12", "#b0306a", "#3a7f86", "#555555")

AXES: Sequence[tuple[str, Callable[[CurvePoint], float | None]]] = (
    ("JOD of faces at twice their size, median", lambda point: point.face_visibility_jod),
    ("LPIPS, median", lambda point: point.lpips),
    ("PSNR in dB, median", lambda point: point.psnr_db),
    ("CPU seconds a photo", lambda point: point.cpu_seconds),
)


def curve_plots(points: Sequence[CurvePoint]) -> list[str]:
    """One SVG element for each of ``AXES`` that at least two points have a value on.

    Filled: the headline, joined along one method; rings: the mean of the families. Values beyond
    the effect's axis are drawn at its ends.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(methods)}
    plots = []
    for label, of_point in AXES:
        placed = [
            (x, point)
            for point in points
            if (x := of_point(point)) is not None and math.isfinite(point.effect)
        ]
        if len(placed) >= 2:
            plots.append(_plot(sorted(placed, key=lambda pair: pair[0]), label, colours))
    return plots


def _plot(placed: Sequence[tuple[float, CurvePoint]], label: str, colours: dict[str, str]) -> str:
    low, high = placed[0][0], placed[-1][0]
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def across(x: float) -> float:
        return round(_LEFT + (x - low) / (high - low) * _WIDTH, 1)

    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'xmlns="http://www.w3.org/2000/svg">',
        *_grid(low, high, label, across),
    ]
    for number, (method, colour) in enumerate(colours.items()):
        own = [(across(x), point) for x, point in placed if point.method == method]
        if own:
            parts += _series(own, colour)
            y = _TOP + 12 + 18 * number
            parts.append(f'<circle cx="{_LEFT + _WIDTH + 20}" cy="{y - 4}" r="5" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + _WIDTH + 32}" y="{y}">{html.escape(method)}</text>')
    return "\n".join([*parts, "</svg>"])


def _grid(low: float, high: float, label: str, across: Callable[[float], float]) -> list[str]:
    parts = []
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="label" x="{_LEFT - 8}" y="{y + 4}">{tick:g}</text>')
    for part in (0.1, 0.5, 0.9):
        value = low + part * (high - low)
        parts.append(f'<text class="tick" x="{across(value)}" y="{bottom + 16}">{value:.3g}</text>')
    middle = _LEFT + _WIDTH / 2
    parts.append(f'<text class="tick" x="{middle}" y="{bottom + 36}">{html.escape(label)}</text>')
    return parts


def _series(own: Sequence[tuple[float, CurvePoint]], colour: str) -> list[str]:
    corners = " ".join(f"{x},{_up(point.effect)}" for x, point in own)
    parts = [f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for x, point in own:
        name = html.escape(point.condition)
        if point.effect_mean is not None and math.isfinite(point.effect_mean):
            parts.append(
                f'<circle cx="{x}" cy="{_up(point.effect_mean)}" r="4" fill="none" '
                f'stroke="{colour}"><title>{name}, mean {point.effect_mean:.2f}</title></circle>'
            )
        parts.append(
            f'<circle cx="{x}" cy="{_up(point.effect)}" r="5" fill="{colour}">'
            f"<title>{name}, {html.escape(point.judge)} {point.effect:.2f}</title></circle>"
        )
    return parts


def _up(effect: float) -> float:
    inside = min(max(effect, _LOW), _HIGH)
    return round(_TOP + (_HIGH - inside) / (_HIGH - _LOW) * _HEIGHT, 1)
