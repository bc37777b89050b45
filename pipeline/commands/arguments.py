"""What several commands share: arguments and options, their configuration, printing, logging."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
        "--preset",
        "--method",
        metavar="NAME",
        help="Named settings to start from: discreet, balanced, strong, fast, "
        "zero-shot (layer 2 only), paper; or the method of another paper: advdm, aspl, caat, "
        "facelock, fsmg, metacloak-style, mist, mist-untargeted, photoguard, simac. "
        "Default: the configuration file's, else balanced.",
        rich_help_panel="Method",
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file with the sections method, operation and output; see `dladiff config show`.",
        rich_help_panel="Method",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one value of the configuration, e.g. loop.num_steps=90. "
        "One that nothing would read is refused. Repeatable.",
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
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="PATTERN",
        help="Look at these files of INPUT alone, e.g. '*.jpg' or 'ann/2024/*' (in quotes). "
        "Default: all; of those whose name promises no photo the first bytes are read, one request "
        "each on a bucket. Repeatable.",
        rich_help_panel="What to do",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Do not look at these files of INPUT, e.g. '*.json'. Photos of them that OUTPUT holds "
        "stay. Repeatable.",
        rich_help_panel="What to do",
    ),
]
MaxGone = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Share of the photos that OUTPUT knows of INPUT that may be gone at once; more are "
        "taken for a volume that is not mounted. 1: all may be. Default: 0.5.",
        rich_help_panel="What to do",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Only the people of shard I of N, by a hash of their names: a plan then needs an N-th "
        "of the memory. Run all N, one after the other.",
        rich_help_panel="What to do",
    ),
]
Increment = Annotated[
    bool,
    typer.Option(
        "--increment",
        help="INPUT is a catalog file of what is new: leave as it is what it does not name, and "
        "read what OUTPUT knows of the people in it only.",
        rich_help_panel="What to do",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Worker processes. Default: as many as GPUs, or CPUs and memory, allow.",
        rich_help_panel="Machines",
    ),
]
MinTargetMet = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Share of the photos with a face that must reach the target likeness "
        "(target_cosine); with fewer the exit code is 2. Default: 0, it is only said.",
        rich_help_panel="What to do",
    ),
]
MethodChange = Annotated[
    Literal["keep", "reprotect"] | None,
    typer.Option(
        help="Where OUTPUT was made with other settings or models: keep its photos and do only "
        "new ones, or protect all anew. Default: refuse and show the difference.",
        rich_help_panel="What to do",
    ),
]
Reprotect = Annotated[
    list[str] | None,
    typer.Option(
        "--reprotect",
        metavar="CONDITION",
        help="Also do photos again whose manifest row meets this, e.g. psnr_db<30 or "
        "target_met=false (in quotes); with several, all must hold. Equal settings give equal "
        "bytes: change some, with --on-method-change keep for the other photos.",
        rich_help_panel="What to do",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Also try failed photos again.", rich_help_panel="What to do"
    ),
]
RetryQuarantined = Annotated[
    bool,
    typer.Option(
        "--retry-quarantined",
        help="Also try photos again whose work killed its process several times.",
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


def duration_s(text: str) -> float:
    """Seconds of a time that a person writes: ``90s``, ``30min``, ``12h``, ``7d``.

    Raises:
        typer.BadParameter: For anything else.
    """
    units = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected a number with s, min, h or d, as in 12h")
    return float(match.group(1)) * units[match.group(2)]


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
    from pipeline.config import load_config

    given = {key: value for key, value in operation.items() if value is not None}
    return load_config(preset, file, overrides or (), operation=given)


def show(found: Any, lines: Callable[[Any], Iterable[str]], as_json: bool) -> None:
    """Prints what a command found, for a person or, with ``--json``, for a program.

    Args:
        found: A dataclass, or a list of them.
        lines: The same in lines.
    """
    if as_json:
        import json
        from dataclasses import asdict

        values = [asdict(one) for one in found] if isinstance(found, list) else asdict(found)
        print(json.dumps(values, indent=2, default=str))
    else:
        print("\n".join(lines(found)))


def log_to_stderr(verbose: bool, as_json: bool = False) -> None:
    """Logging of a command, before its work begins."""
    from pipeline.reporting.logs import set_up_logging

    set_up_logging(as_json=as_json, verbose=verbose)
