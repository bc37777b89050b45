"""Rows of text as a table in Markdown, and where their numbers lie."""

from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "results"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without a line break at its end; empty cells keep one space."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def cosine(value: float) -> str:
    """Two digits, without a zero before the point."""
    return f"{value:.2f}".replace("0.", ".", 1)
