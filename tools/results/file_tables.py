"""What files become, as tables: notes of the code, and ``results/files.json``."""

import json
from pathlib import Path
from typing import Any

from pipeline.inspection.explain import SOURCE_NOTES

_RESULTS = Path(__file__).resolve().parents[2] / "results" / "files.json"


def notes_table() -> str:
    """Every note that a row may have on its file."""
    lines = ["| `source_notes` | means |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{note}` | {text} |" for note, text in SOURCE_NOTES.items())])


def bytes_table() -> str:
    """Bytes of protected files beside their originals'."""
    lines = [
        "| photos | as | bytes in | bytes out | out / in, median | largest | as PNG / in |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['folder']} | {row['format']} | {row['source_bytes']:,.0f} | "
        f"{row['output_bytes']:,.0f} | {row['ratio']:.2f} | {row['largest_ratio']:.2f} | "
        f"{row['ratio_as_png']:.1f} |"
        for row in _results()["bytes"]
    ]
    return "\n".join(lines)


def large_table() -> str:
    """One large photo through the whole command."""
    lines = [
        "| megapixels | seconds | of it decoding, coding, reading back once | peak GB | out / in |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = [
        f"| {row['megapixels']} | {row['seconds']:.0f} | {row['decode_s']:.1f}, "
        f"{row['encode_s']:.1f}, {row['read_back_s']:.1f} | {row['peak_gb']:.1f} | "
        f"{row['ratio']:.2f} |"
        for row in _results()["large"]
    ]
    return "\n".join([*lines, *(rows or ["| 12, 48 | not measured | | | |"])])


def _results() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_RESULTS.read_text())
    return loaded


FILE_TABLES = {"notes": notes_table, "file-bytes": bytes_table, "file-large": large_table}
"""By the name in the marker."""
