"""The picture of what protection leaves against what is seen, from ``benchmarks.frontier``.

The SVG holds the digest of the figures that it shows, so that a stale picture is found without
drawing it anew: other versions of the plot library write other bytes.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

SOURCE = "frontier.jsonl"
PICTURE = "docs/frontier.svg"
_OURS = "DLADiff"
_PLACE = "autoencoder, none"

Point = tuple[float, float]
"""JOD at twice the size, median; share of the clean likeness that is left, mean of judges."""


def is_stale(results: Path, root: Path) -> bool:
    """Whether the picture shows other figures than there are."""
    picture = root / PICTURE
    return not picture.is_file() or _digest(results / SOURCE) not in picture.read_text()


def curves(lines: list[dict[str, Any]]) -> dict[str, list[Point]]:
    """Points of each method by JOD."""
    by_condition = {line["condition"]: line for line in lines}
    clean = by_condition.pop("clean")["left"][_PLACE]
    found: dict[str, list[Point]] = defaultdict(list)
    for condition, line in by_condition.items():
        left = line["left"][_PLACE]
        share = fmean(left[judge] / clean[judge] for judge in clean)
        found[condition.split()[0]].append((line["jod"]["median"], share))
    return {method: sorted(points) for method, points in found.items()}


def draw(results: Path, root: Path) -> None:
    """Writes the picture."""
    # Imported where it is used: the check needs no plot library.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (results / SOURCE).read_text().splitlines()]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for method, points in curves(lines).items():
        jods, shares = zip(*points, strict=True)
        is_ours = method == _OURS
        style = {"color": "black", "linewidth": 3.0} if is_ours else {"linewidth": 1.0}
        axes.plot(jods, shares, marker="o", markersize=7 if is_ours else 4, label=method, **style)
    axes.set_xlabel("what is seen: JOD of the face at twice its size (10: no difference)")
    axes.set_ylabel("likeness left, as a share of clean")
    axes.set_ylim(bottom=0, top=1.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=9, frameon=False)
    digest = {"Description": _digest(results / SOURCE), "Date": None}
    with rc_context({"svg.hashsalt": "dladiff"}):
        figure.savefig(root / PICTURE, metadata=digest)


def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()
