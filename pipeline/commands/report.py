"""``dladiff report``: something to look at, written where the user says."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    OutputUri,
    Verbose,
    log_to_stderr,
)


def report(
    output_uri: OutputUri,
    to: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Where to write: .html for a page with numbers and pictures, .png for the "
            "before/after picture alone.",
        ),
    ] = Path("dladiff-report.html"),
    num_photos: Annotated[
        int, typer.Option("--photos", min=1, max=64, help="How many photos to show.")
    ] = 4,
    blind: Annotated[
        int | None,
        typer.Option(
            "--blind",
            metavar="N",
            min=1,
            max=400,
            help="A page that shows N faces at twice their size, before and after in random order, "
            "asks which is protected and whether you would publish it, and counts the answers.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write a page or picture of some photos: original, protected, change x8.

    It shows photos of people: keep it as private as INPUT. It is never written into OUTPUT.
    """
    log_to_stderr(verbose)
    from pipeline.inspection.report import write_report

    written = write_report(output_uri, to, blind or num_photos, blind=blind is not None)
    print(f"wrote {written}")
