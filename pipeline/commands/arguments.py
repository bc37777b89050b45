"""Arguments and options that several commands share, each documented once."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import RunConfig

InputUri = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Folder or bucket with <identity>/<photo> (file path, s3://, gs://, abfs://), or a "
        "Parquet or CSV catalog with the columns identity, uri and optionally output_key.",
        show_default=False,
    ),
]
OutputUri = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT",
        help="Folder or bucket that holds or will hold the protected photos and their manifest.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Named settings to start from: discreet, balanced, strong, fast, "
        "zero-shot (layer 2 only), paper. "
        "Default: the configuration file's, else balanced.",
        rich_help_panel="Method",
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file with the sections method and operation; see `dladiff config show`.",
        rich_help_panel="Method",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one value of the configuration, e.g. layer2.num_steps=60. Repeatable.",
        rich_help_panel="Method",
    ),
]
AllowPrefixes = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-prefix",
        metavar="URI",
        help="Further place that a catalog's URIs may point to, besides INPUT. Repeatable.",
        rich_help_panel="What to do",
    ),
]
RunId = Annotated[
    str | None, typer.Option("--run", metavar="ID", help="Run to look at; default: the newest.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Log more (may name photos); show tracebacks of errors."),
]


def configuration(
    preset: str | None,
    file: str | None,
    overrides: list[str] | None,
    **operation: object,
) -> "RunConfig":
    """The configuration of a command: preset, file, ``--set``, then options of their own.

    Args:
        operation: Values of ``OperationSettings`` given as options; None: not given.

    Raises:
        ConfigurationError: As ``load_config``.
    """
    import json

    from pipeline.config import load_config

    given = [
        f"operation.{key}={json.dumps(value)}"
        for key, value in operation.items()
        if value is not None
    ]
    return load_config(preset, file, [*(overrides or []), *given])
