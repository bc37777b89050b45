"""``dladiff protect`` and ``dladiff plan``: do the work, or say what it would be."""

from typing import Annotated, Literal

import typer

from pipeline.commands.arguments import (
    AllowPrefixes,
    AsJson,
    ConfigFile,
    InputUri,
    OutputUri,
    Overrides,
    Preset,
    Verbose,
    configuration,
)

Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Worker processes. Default: as many as GPUs, or CPUs and memory, allow.",
        rich_help_panel="Machines",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs that each worker takes, e.g. 0.5. Default: 1 where there are GPUs and the "
        "method has layer 1, else 0.",
        rich_help_panel="Machines",
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


def protect(
    input_uri: InputUri,
    output_uri: OutputUri,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    on_method_change: MethodChange = None,
    retry_failed: RetryFailed = False,
    retry_quarantined: RetryQuarantined = False,
    allow_prefixes: AllowPrefixes = None,
    max_failed: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of failed photos above which the exit code is 2. Default: 0.02.",
            rich_help_panel="What to do",
        ),
    ] = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Running Ray cluster: auto or host:port. Default: RAY_ADDRESS, else this machine.",
            rich_help_panel="Machines",
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Label of this run. Default: the RayJob's name, else UTC time and 4 hex.",
            rich_help_panel="Run",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait while another run works on OUTPUT instead of exiting with 1.",
            rich_help_panel="Run",
        ),
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Exit codes for a job controller: 0 whenever every photo is decided, 3 only "
            "where another cluster can help.",
            rich_help_panel="Run",
        ),
    ] = False,
    single_writer: Annotated[
        bool,
        typer.Option(
            "--single-writer",
            help="Accept a store that cannot create objects exclusively; then only one run may "
            "ever work on OUTPUT at a time.",
            rich_help_panel="Run",
        ),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve Prometheus metrics on this port; 0 takes a free one.",
            rich_help_panel="Logs and metrics",
        ),
    ] = None,
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json",
            help="Log JSON lines instead of a display.",
            rich_help_panel="Logs and metrics",
        ),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Protect the photos of INPUT that OUTPUT does not hold yet.

    OUTPUT remembers what is done: run the same command again after a stop or with new photos,
    and only the rest is done. Photos keep their size; OUTPUT/images mirrors INPUT.
    """
    from pipeline.options import RunOptions
    from pipeline.reporting.displays import open_display
    from pipeline.reporting.logs import set_up_logging

    config = configuration(
        preset,
        config_file,
        overrides,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        max_failed=max_failed,
        single_writer=single_writer or None,
        allow_prefixes=allow_prefixes or None,
    )
    options = RunOptions(
        run_id=run_id,
        ray_address=ray_address,
        on_method_change=on_method_change or "refuse",
        retry_failed=retry_failed,
        retry_quarantined=retry_quarantined,
        wait=wait,
        batch=batch,
        metrics_port=metrics_port,
        log_json=log_json,
        verbose=verbose,
    )
    set_up_logging(as_json=log_json, verbose=verbose)
    with open_display(as_log=log_json) as reporter:
        reporter.stage("starting")
        from pipeline.run import run_protection  # seconds: ray and torch

        outcome = run_protection(input_uri, output_uri, config, options, reporter)
    raise typer.Exit(outcome.exit_code)


def plan(
    input_uri: InputUri,
    output_uri: OutputUri,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    on_method_change: MethodChange = None,
    retry_failed: RetryFailed = False,
    retry_quarantined: RetryQuarantined = False,
    allow_prefixes: AllowPrefixes = None,
    workers: Workers = None,
    seconds_per_photo: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds a worker needs per photo. Default: what OUTPUT's manifest shows for "
            "these settings, else a rough value of the preset.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what protect would do and what it would cost; nothing is written."""
    import json
    from dataclasses import asdict

    from pipeline.inspection.preview import preview_lines, preview_run
    from pipeline.options import RunOptions

    config = configuration(
        preset, config_file, overrides, workers=workers, allow_prefixes=allow_prefixes or None
    )
    options = RunOptions(
        on_method_change=on_method_change or "refuse",
        retry_failed=retry_failed,
        retry_quarantined=retry_quarantined,
    )
    preview = preview_run(input_uri, output_uri, config, options, seconds_per_photo)
    if as_json:
        print(json.dumps(asdict(preview), indent=2))
    else:
        print("\n".join(preview_lines(preview)))
