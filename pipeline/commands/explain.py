"""``dladiff explain``: one photo's story."""

from typing import Annotated

import typer

from pipeline.commands.arguments import (
    OutputUri,
    Verbose,
    log_to_stderr,
)


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
    log_to_stderr(verbose)
    from pipeline.inspection.explain import explain_photo
    from pipeline.storage.store import open_store

    print("\n".join(explain_photo(open_store(output_uri), photo)))
