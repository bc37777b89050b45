"""An evaluation's outcome in a few lines for a terminal. Names nobody."""

from pipeline.evaluation.page import interval, number
from pipeline.evaluation.run import EvaluationOutcome
from pipeline.evaluation.summary import NO_LOSS
from pipeline.reporting.words import format_duration


def outcome_lines(outcome: EvaluationOutcome) -> list[str]:
    """One line per attack, handling and condition, by the headline judge, then where all is."""
    lines = [
        f"{line.attack}, {line.handling}, {line.condition}: leak {number(line.leak_clean)} -> "
        f"{number(line.leak)} (floor {number(line.floor)}), effect {interval(line.effect)}, "
        f"on smoothed images {interval(line.effect_smoothed)}, n = {line.num_people}"
        for line in outcome.lines
        if line.judge == NO_LOSS or not any(other.judge == NO_LOSS for other in outcome.lines)
    ]
    if outcome.num_failed:
        lines.append(f"{outcome.num_failed} of {outcome.num_rows} attacks were not done; why:")
        lines.append(f"{outcome.out_uri}/attacks.parquet, column reason")
    lines.append(f"took {format_duration(outcome.seconds)}; {outcome.out_uri}/page.html")
    return lines
