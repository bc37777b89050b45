"""``dladiff status``, ``verify`` and ``explain``: look at OUTPUT without changing it."""

from typing import Annotated

import typer

from pipeline.commands.arguments import AllowPrefixes, AsJson, OutputUri, RunId, Verbose


def status(
    output_uri: OutputUri,
    run_id: RunId = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show a run in numbers: planned, decided by status, throughput, time left, lock."""
    import json
    from dataclasses import asdict

    from pipeline.inspection.status import read_status, status_lines
    from pipeline.storage.store import open_store

    found = read_status(open_store(output_uri), run_id)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print("\n".join(status_lines(found)))


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
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check every row of the manifest against the files: hash, size, budgets, completeness.

    Budgets are measured on the re-read pixels, inside and outside the face masks, wherever the
    original can still be read. Exit code 2 if anything is found.
    """
    import json
    from dataclasses import asdict

    from pipeline.inspection.verify import report_lines, verify_output
    from pipeline.reporting.displays import progress_bar

    with progress_bar("verify") as on_progress:
        report = verify_output(output_uri, input_uri, tuple(allow_prefixes or ()), on_progress)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print("\n".join(report_lines(report)))
    raise typer.Exit(2 if report.num_findings else 0)


def explain(
    output_uri: OutputUri,
    photo: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="The photo: its path or URI in INPUT, or the URI of its protected file.",
            show_default=False,
        ),
    ],
    verbose: Verbose = False,
) -> None:
    """Say why a photo is or is not protected."""
    from pipeline.inspection.explain import explain_photo
    from pipeline.storage.store import open_store

    print("\n".join(explain_photo(open_store(output_uri), photo)))
