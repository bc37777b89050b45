"""A whole run on one screen: lock, recover, plan, protect, fold, finish."""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.catalog.folder import check_paths, read_catalog
from pipeline.catalog.people import shard_takes
from pipeline.config import RunConfig, method_digest, models_digest
from pipeline.driver import Driver, LimitReached, TooManyDeferred, gone_outputs
from pipeline.errors import ConfigurationError
from pipeline.interruption import RunInterrupted, interruptible
from pipeline.models.registry import weights_sha256
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.canary import Canary, CanaryFailed, accept
from pipeline.output.fold import Fold, write_part
from pipeline.output.gate import Gates, give_up_waiting
from pipeline.output.lock import OutputLock
from pipeline.output.manifest import decided_sources
from pipeline.output.recovery import recover
from pipeline.output.repeated_rows import rows_of_returned
from pipeline.output.runs import (
    finish_run,
    make_run_id,
    start_run,
    write_plan,
)
from pipeline.output.service_level import record_run
from pipeline.planning.against_output import plan_beside_waiting
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.identity_keys import record_identity_keys
from pipeline.planning.output_format import in_format_of, kept_format_note, record_format
from pipeline.planning.plan import Plan
from pipeline.planning.weaker import weaker_than_preset
from pipeline.pool import Pool
from pipeline.records import CommitRecord
from pipeline.reporting.kept_logs import kept_log
from pipeline.reporting.labelled import output_label
from pipeline.reporting.metrics import RunMetrics, serve
from pipeline.reporting.reporter import Reporter, Reporters
from pipeline.reporting.tally import Tally
from pipeline.storage.access import require_writable, use_temporary_folder
from pipeline.storage.store import Store, open_store
from pipeline.worker.code_digest import code_digest
from pipeline.worker.settings import WorkerSettings

logger = logging.getLogger("dladiff.run")

WINDOW_SETS = 10_000
"""Photo sets that the pool gets at a time: Ray's graph takes 4.5 KiB and 1.5 ms of each."""
SETS_PER_WORKER = 1000
"""More where there are many workers: between two windows of a pool on Ray they load anew."""


def run_protection(
    input_uri: str,
    output: str | Store,
    config: RunConfig,
    options: RunOptions | None = None,
    reporter: Reporter | None = None,
    tally: Tally | None = None,
    pool: Pool | None = None,
) -> RunOutcome:
    """Protects the photos of INPUT that OUTPUT does not hold yet.

    Args:
        input_uri: Folder or catalog file, path or URI.
        output: Folder or bucket prefix, path or URI; or such a store, opened already.
        config: Method and operation.
        options: What a person decided for this run.
        reporter: Display; None: silent.
        tally: Running numbers of this run, for a display that reads them; None: nobody does.
        pool: Workers; None: processes of this machine for a small run, else Ray's.

    Raises:
        ConfigurationError: Refused before any work.
        LockHeldError: Another run works on OUTPUT.
        EnvironmentTrouble: The store of OUTPUT itself cannot be used.
    """
    options = options or RunOptions()
    tally = tally or Tally()
    single_writer = config.operation.single_writer
    store = open_store(output, single_writer=single_writer) if isinstance(output, str) else output
    metrics = RunMetrics(tally, output_label(store.uri, config.operation.output_label))
    if options.metrics_port is not None:
        serve(metrics.registry, options.metrics_port)
    reporter = Reporters(tally, metrics, reporter or Reporter())
    input_uri, _ = check_paths(input_uri, store.uri)
    require_exclusive_creation(store)
    use_temporary_folder()
    run_id = options.run_id or make_run_id()
    with (
        kept_log(store, run_id, "driver") as log,
        OutputLock(
            store,
            run_id,
            config.operation.lock_ttl_s,
            wait=options.wait,
            on_wait=reporter.message,
        ) as lock,
        interruptible(),
        ExitStack() as stack,
    ):
        reporter.stage("recover")
        weights = weights_sha256(config.method)
        digest, canary = method_digest(config.method, weights), config.operation.canary
        metrics.names_run(run_id, digest)
        if not canary.num_sets:
            accept(store, digest)
        waiting = recover(store, run_id, lock)
        reporter.stage("catalog")
        listed_at = time.time()
        plan, kept, settings = plan_run(input_uri, store, run_id, config, options, weights, waiting)
        note = kept_format_note(config.output.format, settings.config.output.format)
        if note is not None:
            reporter.message(note)
        give_up_waiting(store, waiting, kept, run_id)
        fold = Fold(
            store,
            run_id,
            lock.regain,
            gates=Gates(store),
            canary=Canary(store, digest, canary, kept),
        )
        driver = Driver(
            store,
            run_id,
            config.operation,
            reporter,
            tally,
            plan.photo_sets,
            fold,
            options.max_worker_hours,
        )
        stack.callback(driver.close)
        reporter.started(plan.summary())
        if len(plan.photo_sets) and (weaker := weaker_than_preset(config.method)):
            reporter.message(weaker)
        if plan.catalog_report.denied:
            reporter.denied(plan.catalog_report.denied)
        message = None
        if len(plan.photo_sets):
            pool = pool or _fitting_pool(config, options, plan.summary().num_photos)
            message = _protect(driver, settings, pool, reporter)
        # Anew: Ray's session has put handlers of its own in place, which would end the process.
        with interruptible():
            reporter.stage("fold")
            message = driver.settle(stopped=message is not None) or message
            driver.record_undecided()
            _record_gone(store, run_id, plan, config)
            write_part(store, run_id, rows_of_returned(store, plan.returned))
            _record_handed_on(store, run_id, plan)
            outcome = driver.outcome(options, message)
            reporter.finished(outcome)
            is_complete = not driver.num_undecided and not driver.is_waiting
            _finish(store, run_id, outcome, metrics, is_complete)
            left = [driver.oldest_upload_left, plan.oldest_later_upload]
            record_run(
                store,
                metrics.output,
                outcome.exit_code,
                time.time(),
                listed_at,
                min((upload for upload in left if upload is not None), default=None),
                tally.backlog,
                config.operation,
            )
        log.end(dataclasses.asdict(outcome))
    return outcome


def require_exclusive_creation(store: Store) -> None:
    """Probes that OUTPUT can be written and tells the first writer from all others.

    Raises:
        ConfigurationError: If it cannot; or does not, and ``single_writer`` is not set.
    """
    if not require_writable(store) and not store.single_writer:
        raise ConfigurationError(
            f"{store.uri} does not honour exclusive creation (If-None-Match), so two runs could "
            "overwrite each other: use another store, or --set single_writer=true if only one run "
            "ever works on it"
        )


def plan_run(
    input_uri: str,
    store: Store,
    run_id: str,
    config: RunConfig,
    options: RunOptions,
    weights: Mapping[str, str],
    waiting: Sequence[CommitRecord] = (),
) -> tuple[Plan, list[CommitRecord], WorkerSettings]:
    """Compares INPUT with what OUTPUT remembers, and records the run and its plan.

    Args:
        weights: ``weights_sha256`` of the method.
        waiting: Commits that wait for the gates of their methods.

    Returns:
        The plan, which of ``waiting`` go on so, and what workers are told.
    """
    config = in_format_of(store, config)
    digest = method_digest(config.method, weights)
    known = partial(decided_sources, store, shard_takes(config.operation.shard))
    catalog = read_catalog(input_uri, config.operation, store.uri, known)
    rules = DecisionRules.asked_for(options, digest)
    plan, kept = plan_beside_waiting(
        catalog, store, config, rules, run_id, options.reprotect, waiting
    )
    plan = plan.limited_to(options.max_sets)
    settings = WorkerSettings(
        output_uri=store.uri,
        run_id=run_id,
        config=config,
        method_digest=digest,
        models_digest=models_digest(weights),
        code_digest=code_digest(),
        input_roots=catalog.roots,
        log_json=options.log_json,
        verbose=options.verbose,
    )
    record_identity_keys(store, config.operation)
    record_format(store, config.output.format)
    start_run(store, run_id, _run_record(input_uri, config, settings))
    write_plan(store, run_id, plan.photo_sets)
    return plan, kept, settings


def _protect(
    driver: Driver, settings: WorkerSettings, pool: Pool, reporter: Reporter
) -> str | None:
    """Runs the pool over the plan, then once more over what was deferred.

    Returns:
        Why the run stopped early, for a person; None: it did not.
    """
    try:
        driver.judge_if_due()
        reporter.stage("workers")
        with (
            pool.session(settings.config, driver.num_undecided) as size,
            interruptible(),
        ):
            reporter.workers(size.most_workers or size.workers, pool.num_alive)
            reporter.at_work(lambda: {**pool.at_work(), **driver.computed()})
            # Where all content seems to be known, models are loaded once a photo proves otherwise.
            loads = any(
                not photo.twins and photo.previous_sha256 is None
                for photo_set in driver.undecided
                for photo in photo_set.photos
            )
            settings = dataclasses.replace(settings, device=size.device, load_at_start=loads)
            reporter.stage("protect")
            window = max(WINDOW_SETS, SETS_PER_WORKER * (size.most_workers or size.workers))
            for _ in range(2):
                for photo_sets in driver.windows(window):
                    for outcome in pool.protect_sets(photo_sets, settings, size):
                        driver.take(outcome)
    except TooManyDeferred as stop:
        return f"stopped: too many photo sets deferred, mostly {stop}"
    except CanaryFailed as failure:
        return f"stopped: {failure}"
    except LimitReached as limit:
        return f"stopped: {limit}"
    except RunInterrupted:
        return "interrupted: the same command goes on where this one stopped"
    return None


def _fitting_pool(config: RunConfig, options: RunOptions, num_photos: int) -> Pool:
    """Processes of this machine where few photos need no more; else Ray, imported only then."""
    if options.ray_address is not None:
        os.environ["RAY_ADDRESS"] = options.ray_address  # which Ray reads when it is imported
    is_small = num_photos <= config.operation.local_photos
    if is_small and not os.environ.get("RAY_ADDRESS") and not _wants_gpus(config):
        from pipeline.local_pool import LocalPool

        return LocalPool()
    from pipeline.ray_pool import RayPool

    return RayPool()


def _wants_gpus(config: RunConfig) -> bool:
    """Whether workers would compute on GPUs: as asked for, else where layer 1 finds some."""
    wanted = config.operation.gpus_per_worker
    if wanted is not None:
        return wanted > 0
    return config.method.reads_model and any(Path("/dev").glob("nvidia[0-9]*"))


def _record_gone(store: Store, run_id: str, plan: Plan, config: RunConfig) -> None:
    rows = plan.gone_rows
    if config.operation.delete_gone_outputs:
        store.delete(gone_outputs(rows, store))
        rows = [dataclasses.replace(row, output_uri=None) for row in rows]
    write_part(store, run_id, rows)


def _record_handed_on(store: Store, run_id: str, plan: Plan) -> None:
    """A key is another photo's once that one is decided; until then it stays where it is."""
    decided = decided_sources(store) if plan.handed_on else frozenset[str]()
    rows = [row for uri, row in plan.handed_on.items() if uri in decided]
    write_part(store, run_id, rows)


def _finish(
    store: Store, run_id: str, outcome: RunOutcome, metrics: RunMetrics, is_complete: bool
) -> None:
    """Declares the run finished, unless sets are left: a late worker may still decide them."""
    store.write(f"runs/{run_id}/metrics.prom", metrics.to_prom_text().encode())
    if is_complete:
        finish_run(store, run_id, dataclasses.asdict(outcome))


def _run_record(input_uri: str, config: RunConfig, settings: WorkerSettings) -> dict[str, Any]:
    return {
        "input": input_uri,
        "config": json.loads(config.model_dump_json()),
        "method_digest": settings.method_digest,
        "models_digest": settings.models_digest,
        "code_digest": settings.code_digest,
        "version": version("dladiff"),
    }
