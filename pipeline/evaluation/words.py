"""An evaluation's outcome in a few lines for a terminal. Names nobody."""

from pipeline.evaluation.page import interval, judge_text, number
from pipeline.evaluation.run import EvaluationOutcome
from pipeline.reporting.words import format_duration


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
