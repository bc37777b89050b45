"""An evaluation's outcome in a few lines for a terminal. Names nobody."""

from collections.abc import Callable, Sequence

from pipeline.evaluation.look import SUMMARY_FILE, LookLine, LookOutcome
from pipeline.evaluation.page import interval, judge_text, number
from pipeline.evaluation.run import EvaluationOutcome
from pipeline.reporting.words import format_count, format_duration


def outcome_lines(outcome: EvaluationOutcome) -> list[str]:
    """One line per attack, handling and condition, by its headline, then where all is."""
    lines = [
        f"{line.attack}, {line.handling}, {line.condition} ({judge_text(line)}): "
        f"leak {number(line.leak_clean)} -> {number(line.leak)} (floor {number(line.floor)}), "
        f"effect {interval(line.effect)}, "
        f"on smoothed images {interval(line.effect_smoothed)}, n = {line.num_people}"
        for line in outcome.lines
        if line.headline
    ]
    if outcome.num_failed:
        lines.append(f"{outcome.num_failed} of {outcome.num_rows} attacks were not done; why:")
        lines.append(f"{outcome.out_uri}/attacks.parquet, column reason")
    lines.append(f"took {format_duration(outcome.seconds)}; {outcome.out_uri}/page.html")
    return lines


def look_table(outcome: LookOutcome) -> list[str]:
    """Two Markdown tables, a row per judge and condition: before the autoencoder, and after it.

    A column per handling, after the autoencoder per handling and size.
    """
    seen = (
        f"{outcome.num_photos} photos of {format_count(outcome.num_people, 'person', 'people')}. "
        "Compare a judge with itself: each has a scale of its own."
    )
    as_it_comes = [line for line in outcome.lines if line.short_side is None]
    lines = [
        f"Mean cosine to the person before the autoencoder, {seen}",
        *_table(as_it_comes, lambda line: line.handling, lambda line: line.published),
        "",
        "Mean cosine to the person after the autoencoder:",
        *_table(
            outcome.lines,
            lambda line: f"{line.handling}, {_size(line.short_side)}",
            lambda line: line.through.value,
        ),
    ]
    lines += [
        f"Photos of `{condition}` are told from clean ones by what the remover takes away with an "
        f"AUC of {auc:.2f} (0.5: not at all)."
        for condition, auc in outcome.detection_auc.items()
    ]
    lines += [f"left out: {reason}" for reason in outcome.reasons]
    return [*lines, f"{outcome.out_uri}/{SUMMARY_FILE}"]


def _table(
    lines: Sequence[LookLine],
    column: Callable[[LookLine], str],
    value: Callable[[LookLine], float],
) -> list[str]:
    columns = list(dict.fromkeys(map(column, lines)))
    rows: dict[tuple[str, str], dict[str, LookLine]] = {}
    for line in lines:
        rows.setdefault((line.judge, line.condition), {})[column(line)] = line
    table = [
        f"| judge | photos | {' | '.join(columns)} |",
        f"| --- | --- |{' ---: |' * len(columns)}",
    ]
    for (_, condition), of_row in rows.items():
        values = " | ".join(f"{value(of_row[name]):.2f}" for name in columns)
        table.append(f"| {_judge(next(iter(of_row.values())))} | {condition} | {values} |")
    return table


def _size(side: int | None) -> str:
    return "own size" if side is None else f"{side} px"


def _judge(line: LookLine) -> str:
    if line.in_loss:
        return f"{line.judge} (in a loss)"
    return f"{line.judge} (kin of a loss)" if line.kin_of_loss else line.judge
