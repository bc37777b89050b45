"""``dladiff check``: is everything there that a run needs?"""

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import RunConfig
    from pipeline.inspection.check import Check


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
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Also ask every node of this Ray cluster (auto or host:port): same environment, "
            "access to INPUT and OUTPUT, models, a token, CPUs, niceness."
        ),
    ] = None,
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
    if ray_address is not None:
        checks += _ask_nodes(
            ray_address,
            input_uri,
            output_uri,
            lambda: configuration(preset, config_file, overrides),
        )
    show(checks, check_lines, as_json)
    raise typer.Exit(0 if all(one.ok for one in checks) else 1)


def _ask_nodes(
    address: str,
    input_uri: str | None,
    output_uri: str | None,
    make_config: "Callable[[], RunConfig]",
) -> "list[Check]":
    os.environ["RAY_ADDRESS"] = address  # which Ray reads when it is imported
    from pipeline.errors import ConfigurationError
    from pipeline.inspection.check import Check
    from pipeline.inspection.check_nodes import look, node_checks
    from pipeline.ray_pool import ask_nodes, node_cpus

    method = None
    with suppress(ConfigurationError):  # an answer already
        method = make_config().method
    try:
        answers = ask_nodes(partial(look, input_uri, output_uri, method))
    except ConfigurationError as error:
        return [Check("cluster", False, str(error), "is it started, and is the token the same?")]
    told = {
        name: {"trouble": one} if isinstance(one, str) else one for name, one in answers.items()
    }
    return node_checks(told, os.environ, node_cpus(), method.threads if method else 1)
