"""``dladiff gc``: free OUTPUT of what nothing needs."""

from typing import Annotated

import typer

from pipeline.commands.arguments import AsJson, OutputUri, Verbose, duration_s, log_to_stderr, show


def gc(
    output_uri: OutputUri,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would go; write nothing and take no lock."),
    ] = False,
    older_than: Annotated[
        float,
        typer.Option(
            parser=duration_s,
            metavar="TIME",
            help="Leave runs alone that finished within this time, e.g. 12h or 30d.",
        ),
    ] = "7d",  # type: ignore[assignment]
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Remove attempts, commits, plans and staged photos of finished runs, and temporary files.

    Images, the manifest, and whatever an unfinished run or an unpublished decision needs stay.
    What was asked of each run, its end and its metrics stay as well. No run may work meanwhile.
    """
    log_to_stderr(verbose)
    from pipeline.storage.store import open_store
    from pipeline.upkeep.gc import collect_garbage, garbage_lines

    show(collect_garbage(open_store(output_uri), older_than, dry_run), garbage_lines, as_json)
