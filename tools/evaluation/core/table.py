"""Lines of an evaluation -> a Markdown table, as ``docs/efficacy.md`` has them."""

import math
from collections.abc import Mapping, Sequence

from dladiff.evaluation.scores import Score
from pipeline.evaluation.result import Visibility
from pipeline.evaluation.summary import Line


def markdown_table(
    found: Sequence[Line],
    visibility: Visibility,
    labels: Mapping[str, str],
    attack: str,
    handling: str,
    judges: Sequence[str] = (),
) -> str:
    """A row per condition: effects with intervals by some judges, values by the others.

    Args:
        found: Of the conditions.
        visibility: Of each of them.
        labels: What to call a condition, in the order of the rows.
        attack: Whose lines.
        handling: Under which handling.
        judges: Who gets effect, smoothed effect and the paired lead; empty: the headline.
    """
    lines = {
        (line.condition, line.judge): line
        for line in found
        if (line.attack, line.handling) == (attack, handling)
    }
    headline = next((judge for _, judge in lines), "")
    full = list(judges) or [headline]
    brief = [
        name
        for name in dict.fromkeys(judge for _, judge in lines)
        # Means and the worst of families have several words; judges have names without spaces.
        if name not in full and " " not in name
    ]
    heads = ["condition"]
    for judge in full:
        heads += [judge, "smoothed", "`balanced` is ahead by"]
    rows = [[*heads, *brief, "PSNR dB, LPIPS", "KID"]]
    rows.append(["---"] * len(rows[0]))
    for condition, label in labels.items():
        if (condition, full[0]) in lines:
            row = [label]
            for judge in full:
                line = lines[condition, judge]
                row += [
                    with_interval(line.effect),
                    short(line.effect_smoothed.value),
                    with_interval(line.behind_protected),
                ]
            row += [short(lines[condition, judge].effect.value) for judge in brief]
            seen = visibility[condition]
            row.append(f"{short(seen['psnr_db_median'], 1)}, {short(seen['lpips_median'], 3)}")
            rows.append([*row, short(lines[condition, full[0]].kid, 3)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_interval(score: Score | None) -> str:
    """``.95 (.85 to 1.04)``; nothing for no score."""
    if score is None or not math.isfinite(score.value):
        return ""
    if score.low is None:
        return short(score.value)
    return f"{short(score.value)} ({short(score.low)} to {short(score.high)})"


def short(value: float | None, digits: int = 2) -> str:
    """A number without the zero before its point; ``-`` for none."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
