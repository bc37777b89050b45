"""What a production autoencoder shows of a face, as tables: FLUX.2's, distilled (TAEF2).

``results/through.json`` is ``through.json`` of ``dladiff evaluate ... --through``: today's default,
by size and handling. ``results/frontier.jsonl`` has other strengths and methods of others.
"""

import json
from typing import Any

from tools.results.markdown import RESULTS, cosine, markdown_table

_JUDGES = ("MobileFaceNet", "MobileFace")
_AT_MOST = {"none": 0.2, "jpeg75_half": 0.25}
"""What the default is meant to leave, on average over people, by every judge in no loss."""
_HANDLINGS = {"none": "as published", "jpeg75_half": "half size, JPEG 75"}


def sizes_table() -> str:
    """Clean photos and ``balanced``, at each size and handling, by judges in no loss."""
    lines = _through()["lines"]
    judges = [name for name in dict.fromkeys(one["judge"] for one in lines) if _unseen(lines, name)]
    rows = []
    for side, handling in dict.fromkeys((one["short_side"], one["handling"]) for one in lines):
        cells = []
        for judge in judges:
            clean, ours = (
                _one(lines, side, handling, condition, judge)
                for condition in ("clean", "protected")
            )
            cells.append(f"{cosine(clean)}, {_marked(ours, _AT_MOST[handling])}")
        size = "the photo's own" if side is None else f"{side} px"
        rows.append([size, _HANDLINGS[handling], f"at most {cosine(_AT_MOST[handling])}", *cells])
    header = ["short side", "handling", "meant"]
    return markdown_table([*header, *(f"{judge}: clean, `balanced`" for judge in judges)], rows)


def methods_table() -> str:
    """Ours by strength and ten methods of others at the photo's own size."""
    rows = []
    for row in _frontier():
        shown = (
            ", ".join(cosine(row["left"][f"autoencoder, {handling}"][name]) for name in _JUDGES)
            for handling in _HANDLINGS
        )
        rows.append([_named(row["condition"]), f"{row['jod']['median']:.1f}", *shown])
    header = ["method", "JOD at twice the size", "as published: " + ", ".join(_JUDGES)]
    return markdown_table([*header, "half size, JPEG 75"], rows)


def _named(condition: str) -> str:
    """As a reader knows it."""
    if condition == "clean":
        return "clean photos"
    ours = {"strong": "`strong`", "9.2": "`balanced` (9.2)", "9.6": "`balanced` at 9.6"}
    name, strength = condition.split()
    if name == "DLADiff":
        return ours.get(strength, f"`balanced` at {strength}")
    return f"`{name}`, {strength} levels"


def _marked(value: float, at_most: float) -> str:
    """Bold where it misses what was asked."""
    return f"**{cosine(value)}**" if round(value, 2) > at_most else cosine(value)


def _unseen(lines: list[dict[str, Any]], judge: str) -> bool:
    return not any(one["in_loss"] or one["kin_of_loss"] for one in lines if one["judge"] == judge)


def _one(
    lines: list[dict[str, Any]], side: int | None, handling: str, condition: str, judge: str
) -> float:
    key = (side, handling, condition, judge)
    (found,) = (
        one
        for one in lines
        if (one["short_side"], one["handling"], one["condition"], one["judge"]) == key
    )
    value: float = found["through"]["value"]
    return value


def _through() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / "through.json").read_text())
    return loaded


def _frontier() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / "frontier.jsonl").read_text().splitlines()]


THROUGH_TABLES = {"through-sizes": sizes_table, "through-methods": methods_table}
"""By the name in the marker."""
