"""``dladiff verify``: does OUTPUT hold what its manifest says?"""

import sys
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    AllowPrefixes,
    AsJson,
    Exclude,
    Include,
    MinTargetMet,
    OutputUri,
    Verbose,
    log_to_stderr,
    show,
)


def verify(
    output_uri: OutputUri,
    input_uri: Annotated[
        str | None,
        typer.Argument(
            metavar="[INPUT]",
            help="Also check that every photo of INPUT is accounted for.",
            show_default=False,
        ),
    ] = None,
    allow_prefixes: AllowPrefixes = None,
    include: Include = None,
    exclude: Exclude = None,
    min_target_met: MinTargetMet = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check every row of the manifest against the files: hash, size, budgets, completeness.

    Budgets are measured on the re-read pixels, inside and outside the face masks, wherever the
    original can still be read. Exit code 2 if anything is found, or if fewer photos reached their
    target than --min-target-met asks for.
    """
    log_to_stderr(verbose)
    from pipeline.config import OperationSettings
    from pipeline.inspection.findings import report_lines
    from pipeline.inspection.verify import verify_output
    from pipeline.reporting.displays import progress_bar
    from pipeline.reporting.reach_words import target_shortfall

    listing = OperationSettings(
        allow_prefixes=tuple(allow_prefixes or ()),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
    with progress_bar("verify") as on_progress:
        report = verify_output(output_uri, input_uri, listing, on_progress)
    show(report, report_lines, as_json)
    shortfall = target_shortfall(report.reach, min_target_met or 0.0)
    if shortfall:
        print(shortfall, file=sys.stderr)
    raise typer.Exit(2 if report.num_findings or shortfall else 0)
