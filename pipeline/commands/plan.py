"""``dladiff plan``: say what ``protect`` would do and what it would cost."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    AllowPrefixes,
    AsJson,
    ConfigFile,
    Exclude,
    Include,
    Increment,
    InputUri,
    MaxGone,
    MethodChange,
    OutputUri,
    Overrides,
    Preset,
    Reprotect,
    RetryFailed,
    RetryQuarantined,
    Shard,
    Verbose,
    Workers,
    configuration,
    log_to_stderr,
    show,
)


def plan(
    input_uri: InputUri,
    output_uri: OutputUri,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    on_method_change: MethodChange = None,
    reprotect: Reprotect = None,
    retry_failed: RetryFailed = False,
    retry_quarantined: RetryQuarantined = False,
    allow_prefixes: AllowPrefixes = None,
    shard: Shard = None,
    increment: Increment = False,
    include: Include = None,
    exclude: Exclude = None,
    max_gone: MaxGone = None,
    workers: Workers = None,
    seconds_per_photo: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds a worker needs per photo. Default: what --calibrate measures, else what "
            "OUTPUT's last run with these settings took, else a rough value of the preset.",
        ),
    ] = None,
    calibrate: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Protect N of the photos on this machine, for the clock alone: nothing is kept.",
            show_default=False,
        ),
    ] = 0,
    prices_file: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="YAML with worker_hour, writes_1000, reads_1000, gb and currency: show money as "
            "well.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what protect would do and what it would cost; nothing is written."""
    log_to_stderr(verbose)
    from pipeline.inspection.preview import preview_lines, preview_run
    from pipeline.options import RunOptions
    from pipeline.planning.prices import read_prices

    config = configuration(
        preset,
        config_file,
        overrides,
        workers=workers,
        allow_prefixes=allow_prefixes or None,
        shard=shard,
        increment=increment or None,
        include=include or None,
        exclude=exclude or None,
        max_gone=max_gone,
    )
    options = RunOptions(
        on_method_change=on_method_change or "refuse",
        reprotect=tuple(reprotect or ()),
        retry_failed=retry_failed,
        retry_quarantined=retry_quarantined,
    )
    prices = None if prices_file is None else read_prices(prices_file)
    preview = preview_run(
        input_uri, output_uri, config, options, seconds_per_photo, prices, calibrate
    )
    show(preview, preview_lines, as_json)
