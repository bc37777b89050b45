"""What the manifest's rows say together, in a few numbers for a person. Names nobody."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from pipeline.manifest_row import PROTECTED_STATUSES, CosineColumn, ManifestRow
from pipeline.reach import REACH_COLUMNS, Reach
from pipeline.reasons import Reason
from pipeline.reporting.reach_words import NONE_REACHED, left_out_text, target_text

SUMMARY_COLUMNS = (
    *REACH_COLUMNS,
    "reason",
    "num_faces",
    "max_change_levels",
    "max_change_levels_outside_faces",
    "psnr_db",
    "ssim",
    "face_visibility_jod",
    "seconds",
)
"""Columns of the manifest that ``summary_table`` reads."""


def summary_table(rows: Iterable[ManifestRow]) -> list[tuple[str, str]]:
    """Name and value of what the manifest's newest rows say together."""
    rows = list(rows)
    statuses = Counter(row.status for row in rows)
    reasons = Counter(
        Reason.parse(row.reason).code
        for row in rows
        if row.status not in PROTECTED_STATUSES and row.reason
    )
    done = [row for row in rows if row.status in PROTECTED_STATUSES]
    reach = Reach.of(rows)
    none = f", {NONE_REACHED}" if reach.all_missed else ""
    table = [("photos", f"{len(rows):,}{none}")]
    table += [(status, f"{number:,}") for status, number in sorted(statuses.items())]
    table += [(f"reason {reason}", f"{number:,}") for reason, number in sorted(reasons.items())]
    if text := target_text(reach):
        table.append(("target likeness", text))
    if text := left_out_text(reach):
        table.append(("faces left out", text))
    for name, column, unit in (
        ("largest change", "max_change_levels", " levels of 255"),
        ("largest change outside faces", "max_change_levels_outside_faces", " levels of 255"),
    ):
        values = [value for row in done if (value := getattr(row, column)) is not None]
        if values:
            table.append((name, f"{max(values)}{unit}"))
    for name, column, unit in (
        ("PSNR, mean", "psnr_db", " dB"),
        ("SSIM, mean", "ssim", ""),
        ("seconds per photo, mean", "seconds", " s"),
    ):
        values = [value for row in done if (value := getattr(row, column)) is not None]
        if values:
            table.append((name, f"{fmean(values):.3g}{unit}"))
    if jods := [jod for row in done if (jod := row.face_visibility_jod) is not None]:
        shown = f"{median(jods):.2f} ({min(jods):.2f}) of 10 JOD"
        table.append(("looks kept by faces at twice their size, median (worst)", shown))
    return table + _cosine_rows(done)


def _cosine_rows(done: Sequence[ManifestRow]) -> list[tuple[str, str]]:
    """Mean cosine to the original by encoder, as saved and after handling."""
    by_encoder: dict[str, list[CosineColumn]] = {}
    for row in done:
        for cosine in row.identity_cosines or ():
            name = cosine.encoder + (" (held out)" if cosine.held_out else "")
            by_encoder.setdefault(name, []).append(cosine)
    table = []
    for name, cosines in sorted(by_encoder.items()):
        shown = " / ".join(
            _mean([getattr(cosine, key) for cosine in cosines])
            for key in ("before", "after", "after_handling")
        )
        table.append((f"likeness {name}: unprotected / protected / after JPEG and resize", shown))
    return table


def _mean(values: Sequence[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return f"{fmean(measured):.2f}" if measured else "-"
