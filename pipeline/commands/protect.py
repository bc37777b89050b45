"""``dladiff protect``: do the work."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.arguments import (
    AllowPrefixes,
    ConfigFile,
    Exclude,
    Include,
    Increment,
    InputUri,
    MaxGone,
    MethodChange,
    MinTargetMet,
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
)

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.reporting.reporter import Reporter


def protect(
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
    min_target_met: MinTargetMet = None,
    workers: Workers = None,
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
    max_sets: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Do N photo sets (of up to 16 photos) at most, the newest uploads first; the "
            "rest stays for the next run, exit code 0.",
            rich_help_panel="Limits",
        ),
    ] = None,
    max_worker_hours: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="H",
            help="Stop once the workers have spent H hours on photo sets, all together: "
            "GPU-hours where each worker has a GPU. Sets in flight are given up; they and the rest "
            "stay for the next run, exit code 0.",
            rich_help_panel="Limits",
        ),
    ] = None,
    audit: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Afterwards attack N photo sets as a customiser would, and put what still shows "
            "into the run's record: minutes a set. See `dladiff status` and `report`.",
            rich_help_panel="Run",
        ),
    ] = 0,
    canary: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Of settings that are new to OUTPUT, judge the first N photo sets before anything "
            "is published; 0 accepts them unseen. Default: 50, see operation.canary.",
            rich_help_panel="Limits",
        ),
    ] = None,
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
    from pipeline.reporting.tally import Tally

    config = configuration(
        preset,
        config_file,
        overrides,
        workers=workers,
        min_target_met=min_target_met,
        allow_prefixes=allow_prefixes or None,
        shard=shard,
        increment=increment or None,
        include=include or None,
        exclude=exclude or None,
        max_gone=max_gone,
        canary=None if canary is None else {"num_sets": canary},
    )
    options = RunOptions(
        run_id=run_id,
        ray_address=ray_address,
        on_method_change=on_method_change or "refuse",
        reprotect=tuple(reprotect or ()),
        retry_failed=retry_failed,
        retry_quarantined=retry_quarantined,
        wait=wait,
        batch=batch,
        max_sets=max_sets,
        max_worker_hours=max_worker_hours,
        metrics_port=metrics_port,
        log_json=log_json,
        verbose=verbose,
    )
    log_to_stderr(verbose, as_json=log_json)
    tally = Tally()
    with open_display(tally, as_log=log_json) as reporter:
        reporter.stage("starting")
        from pipeline.run import run_protection  # seconds: ray and torch

        outcome = run_protection(input_uri, output_uri, config, options, reporter, tally)
        if audit:
            reporter.stage("audit")
            _audit(output_uri, outcome.run_id, audit, config, ray_address, reporter)
    raise typer.Exit(outcome.exit_code)


def _audit(
    output_uri: str,
    run_id: str,
    num_sets: int,
    config: "RunConfig",
    ray_address: str | None,
    reporter: "Reporter",
) -> None:
    """The run is over: whatever happens to its audit is said, and changes nothing of it."""
    from dladiff.errors import DladiffError
    from pipeline.commands.audit import do_audit
    from pipeline.errors import PipelineError
    from pipeline.interruption import RunInterrupted
    from pipeline.reporting.audit_words import audit_table
    from pipeline.storage.store import open_store

    later = f"`dladiff audit OUTPUT --run {run_id} --sets {num_sets}` does it"
    try:
        store = open_store(output_uri)
        found = do_audit(store, run_id, num_sets, config, ray_address, reporter.message)
    except RunInterrupted:
        reporter.message(f"audit: interrupted; {later}")
    except (DladiffError, PipelineError) as error:
        reporter.message(f"audit: not done: {error}; {later}")
    except Exception as error:  # a bug in the audit is no reason to call the run failed
        logging.getLogger("dladiff.audit").debug("audit", exc_info=error)
        reporter.message(f"audit: not done: unexpected {type(error).__name__}; {later}")
    else:
        for name, value in audit_table(found):
            reporter.message(f"{name}: {value}")
