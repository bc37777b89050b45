"""``dladiff audit``: attack a few photo sets of a run that has finished."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.arguments import AsJson, OutputUri, RunId, Verbose, log_to_stderr, show

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.evaluation.audit import Say
    from pipeline.output.audits import Audit
    from pipeline.storage.store import Store


def audit(
    output_uri: OutputUri,
    num_sets: Annotated[
        int, typer.Option("--sets", min=1, help="How many photo sets, of different people.")
    ] = 1,
    run_id: RunId = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: as CPUs or GPUs allow.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Attack a few photo sets of a finished run as a customiser would; one set takes minutes.

    Only numbers are kept, in the run's record: see status and report. To look at generated
    faces, use evaluate.
    """
    import sys

    log_to_stderr(verbose)
    from pipeline.config import RunConfig
    from pipeline.inspection.status import read_status
    from pipeline.reporting.audit_words import audit_table
    from pipeline.storage.store import open_store

    store = open_store(output_uri)
    run = read_status(store, run_id).run_id
    config = RunConfig()
    if workers is not None:
        operation = config.operation.model_copy(update={"workers": workers})
        config = config.model_copy(update={"operation": operation})
    found = do_audit(store, run, num_sets, config, None, lambda text: print(text, file=sys.stderr))
    show(found, lambda one: [f"{name}: {value}" for name, value in audit_table(one)], as_json)


def do_audit(
    store: "Store",
    run_id: str,
    num_sets: int,
    config: "RunConfig",
    ray_address: str | None,
    say: "Say",
) -> "Audit":
    """An audit by workers of the size that ``config`` says."""
    from functools import partial

    from pipeline.evaluation.audit import audit_run  # seconds: torch
    from pipeline.evaluation.workers import WorkerOptions, ray_workers

    operation = config.operation
    options = WorkerOptions(
        operation.workers, gpus_per_worker=operation.gpus_per_worker, ray_address=ray_address
    )
    return audit_run(store, run_id, num_sets, partial(ray_workers, options), say)
