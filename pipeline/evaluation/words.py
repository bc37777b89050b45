"""An evaluation's outcome in a few lines for a terminal. Names nobody."""

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
    """A Markdown table: a row per judge and condition, a column per handling and size."""
    columns = list(dict.fromkeys((line.handling, line.short_side) for line in outcome.lines))
    names = [f"{handling}, {_size(side)}" for handling, side in columns]
    cells = {
        (line.judge, line.condition, line.handling, line.short_side): line for line in outcome.lines
    }
    rows = list(dict.fromkeys((line.judge, line.condition) for line in outcome.lines))
    lines = [
        f"Mean cosine to the person after the autoencoder, {outcome.num_photos} photos of "
        f"{format_count(outcome.num_people, 'person', 'people')}. Compare a judge with itself: "
        "each has a scale of its own.",
        f"| judge | photos | {' | '.join(names)} |",
        f"| --- | --- |{' ---: |' * len(columns)}",
    ]
    for judge, condition in rows:
        of_row = [cells[judge, condition, *column] for column in columns]
        values = " | ".join(f"{line.through.value:.2f}" for line in of_row)
        lines.append(f"| {_judge(of_row[0])} | {condition} | {values} |")
    lines += [
        f"Photos of `{condition}` are told from clean ones by what the remover takes away with an "
        f"AUC of {auc:.2f} (0.5: not at all)."
        for condition, auc in outcome.detection_auc.items()
    ]
    lines += [f"left out: {reason}" for reason in outcome.reasons]
    return [*lines, f"{outcome.out_uri}/{SUMMARY_FILE}"]


def _size(side: int | None) -> str:
    return "own size" if side is None else f"{side} px"


def _judge(line: LookLine) -> str:
    if line.in_loss:
        return f"{line.judge} (in a loss)"
    return f"{line.judge} (kin of a loss)" if line.kin_of_loss else line.judge
