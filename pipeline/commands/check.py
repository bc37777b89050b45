"""``dladiff check``: is everything there that a run needs?"""

from typing import Annotated

import typer

from pipeline.commands.arguments import (
    AsJson,
    ConfigFile,
    Overrides,
    Preset,
    Verbose,
    configuration,
    log_to_stderr,
    show,
)


def check(
    input_uri: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="Is it there and can it be listed?"),
    ] = None,
    output_uri: Annotated[
        str | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="Can it be written, does the store honour exclusive creation, who holds the lock?",
        ),
    ] = None,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    load_models: Annotated[
        bool, typer.Option("--load-models", help="Also load every model (takes seconds).")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check that a run can work: configuration, models, access to INPUT and OUTPUT.

    One line per check, ok or fail with a remedy; exit code 1 if one fails. A few small objects
    are written below OUTPUT/locks and deleted again.
    """
    log_to_stderr(verbose)
    from pipeline.inspection.check import check_all, check_lines

    checks = check_all(
        lambda: configuration(preset, config_file, overrides), input_uri, output_uri, load_models
    )
    show(checks, check_lines, as_json)
    raise typer.Exit(0 if all(one.ok for one in checks) else 1)
