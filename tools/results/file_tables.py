"""What files become, as tables: notes of the code, and ``results/files.json``."""

import json
from typing import Any

from pipeline.inspection.explain import SOURCE_NOTES
from tools.results.markdown import RESULTS, markdown_table


def notes_table() -> str:
    """Every note that a row may have on its file."""
    return markdown_table(
        ["`source_notes`", "means"], ([f"`{note}`", text] for note, text in SOURCE_NOTES.items())
    )


def bytes_table() -> str:
    """Bytes of protected files beside their originals'."""
    header = ["photos", "as", "bytes in", "bytes out", "out / in, median", "largest", "as PNG / in"]
    rows = (
        [
            row["folder"],
            row["format"],
            f"{row['source_bytes']:,.0f}",
            f"{row['output_bytes']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['largest_ratio']:.2f}",
            f"{row['ratio_as_png']:.1f}",
        ]
        for row in _results()["bytes"]
    )
    return markdown_table(header, rows)


def large_table() -> str:
    """One large photo through the whole command."""
    header = ["megapixels", "seconds", "of it decoding, coding, reading back once", "peak GB"]
    rows = (
        [
            str(row["megapixels"]),
            f"{row['seconds']:.0f}",
            f"{row['decode_s']:.1f}, {row['encode_s']:.1f}, {row['read_back_s']:.1f}",
            f"{row['peak_gb']:.1f}",
            f"{row['ratio']:.2f}",
        ]
        for row in _results()["large"]
    )
    return markdown_table([*header, "out / in"], rows)


def _results() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / "files.json").read_text())
    return loaded


FILE_TABLES = {"notes": notes_table, "file-bytes": bytes_table, "file-large": large_table}
"""By the name in the marker."""
