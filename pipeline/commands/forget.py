"""``dladiff forget``: remove people from OUTPUT, for good."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import AsJson, OutputUri, Verbose, log_to_stderr, show


def forget(
    output_uri: OutputUri,
    identities: Annotated[
        list[str] | None,
        typer.Option(
            "--identity",
            metavar="NAME",
            help="Person to forget, named as in INPUT and the manifest. Repeatable.",
        ),
    ] = None,
    names_file: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE", help="UTF-8 file with a name a line.", show_default=False
        ),
    ] = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Take these people again: the next run protects their photos anew.",
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Remove everything OUTPUT holds of people: images, run records, manifest rows.

    Later runs refuse their photos; OUTPUT keeps a keyed hash of each name for that, not the name.
    INPUT is not touched, nor are reports elsewhere and earlier versions that a bucket keeps. If
    it is interrupted, run it again with the same names. No run may work meanwhile.
    """
    log_to_stderr(verbose)
    from pipeline.storage.store import open_store
    from pipeline.upkeep.forget import forget_identities, forget_lines, readmit_identities

    names = [*(identities or ()), *_names_in(names_file)]
    store = open_store(output_uri)
    if undo:
        print(f"{readmit_identities(store, names):,} of {len(set(names)):,} were forgotten")
    else:
        show(forget_identities(store, names), forget_lines, as_json)


def _names_in(path: Path | None) -> list[str]:
    from pipeline.errors import ConfigurationError

    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the names in {path}: {error}") from None
    return [line.strip() for line in lines if line.strip()]
