"""Writes the tables of README and docs, and a picture; ``--check`` only says where they differ.

They come from ``results/``; those of reasons and presets from the code.

    python -m tools.results [--check]

A table stands between ``<!-- results: NAME -->`` and ``<!-- /results -->``.
"""

import argparse
import re
import sys
from pathlib import Path

from tools.results import frontier
from tools.results.file_tables import FILE_TABLES
from tools.results.model_tables import MODEL_TABLES
from tools.results.protection import PROTECTION_TABLES
from tools.results.reason_tables import REASON_TABLES
from tools.results.small_tables import SMALL_TABLES
from tools.results.through_tables import THROUGH_TABLES

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    **PROTECTION_TABLES,
    **REASON_TABLES,
    **FILE_TABLES,
    **MODEL_TABLES,
    **SMALL_TABLES,
    **THROUGH_TABLES,
}
_MARKED = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A document with its marked tables made anew.

    Raises:
        ValueError: If a marker names no table.
    """

    def made(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"no table {match[2]!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}"

    return _MARKED.sub(made, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if stale")
    check: bool = parser.parse_args().check
    stale = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = document.read_text()
        made = with_tables(text)
        if made != text:
            stale.append(str(document.relative_to(ROOT)))
            if not check:
                document.write_text(made)
    if frontier.is_stale(ROOT / "results", ROOT):
        stale.append(frontier.PICTURE)
        if not check:
            frontier.draw(ROOT / "results", ROOT)
    if stale and check:
        sys.exit(f"differ from their source: {', '.join(stale)}; run `make results`")


if __name__ == "__main__":
    main()
