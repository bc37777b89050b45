"""What the manifest's rows say together, in a few numbers for a person. Names nobody."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from pipeline.records import PROTECTED_STATUSES

SUMMARY_COLUMNS = (
    "status",
    "reason",
    "num_faces",
    "max_change_levels",
    "max_change_levels_outside_faces",
    "psnr_db",
    "ssim",
    "identity_cosines",
    "seconds",
)
"""Columns of the manifest that ``summary_table`` reads."""


def summary_table(rows: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Name and value of what the manifest's newest rows say together."""
    rows = list(rows)
    statuses = Counter(row["status"] for row in rows)
    reasons = Counter(
        (row["reason"] or "").partition(":")[0]
        for row in rows
        if row["status"] not in PROTECTED_STATUSES and row["reason"]
    )
    done = [row for row in rows if row["status"] in PROTECTED_STATUSES]
    table = [("photos", f"{len(rows):,}")]
    table += [(status, f"{number:,}") for status, number in sorted(statuses.items())]
    table += [(f"reason {reason}", f"{number:,}") for reason, number in sorted(reasons.items())]
    for name, column, unit in (
        ("largest change", "max_change_levels", " levels of 255"),
        ("largest change outside faces", "max_change_levels_outside_faces", " levels of 255"),
    ):
        values = [row[column] for row in done if row[column] is not None]
        if values:
            table.append((name, f"{max(values)}{unit}"))
    for name, column, unit in (
        ("PSNR, mean", "psnr_db", " dB"),
        ("SSIM, mean", "ssim", ""),
        ("seconds per photo, mean", "seconds", " s"),
    ):
        values = [row[column] for row in done if row[column] is not None]
        if values:
            table.append((name, f"{fmean(values):.3g}{unit}"))
    return table + _cosine_rows(done)


def _cosine_rows(done: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Mean cosine to the original by encoder, as saved and after handling."""
    by_encoder: dict[str, list[dict[str, Any]]] = {}
    for row in done:
        for cosine in row["identity_cosines"] or ():
            name = cosine["encoder"] + (" (held out)" if cosine["held_out"] else "")
            by_encoder.setdefault(name, []).append(cosine)
    table = []
    for name, cosines in sorted(by_encoder.items()):
        means = [
            fmean(values) if (values := [c[key] for c in cosines if c[key] is not None]) else None
            for key in ("before", "after", "after_handling")
        ]
        shown = " / ".join("-" if mean is None else f"{mean:.2f}" for mean in means)
        table.append((f"likeness {name}: unprotected / protected / after JPEG and resize", shown))
    return table
