"""The driver's Prometheus metrics of one run, and how they are served.

Labels: output, status, stage, cause, encoder, reached, operation, state; of the run its id and
method. Never a person or a file.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector

from pipeline.errors import ConfigurationError, EnvironmentTrouble
from pipeline.manifest_row import LEFT_OUT_CAUSES, RowStatus
from pipeline.options import PlanCounts, RunOutcome
from pipeline.reach import Reach
from pipeline.reasons import PASSED_OVER
from pipeline.reporting.labelled import LabelledSeries
from pipeline.reporting.reporter import DecidedSet, Reporter
from pipeline.reporting.tally import Tally
from pipeline.storage import traffic

_SET_SECONDS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
_AGE_SECONDS = (60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
_CAUSES = sorted({kind.cause for kind in EnvironmentTrouble.__subclasses__()})


class RunMetrics(Reporter):
    """Keeps numbers in a registry of its own, all named ``dladiff_*``."""

    def __init__(self, tally: Tally, output: str) -> None:
        """
        Args:
            tally: The run's, which hears each hook before these metrics do.
            output: ``labelled.output_label`` of OUTPUT.
        """
        self.output = output
        self.registry = CollectorRegistry()
        self._own = CollectorRegistry()
        self.registry.register(LabelledSeries(self._own, output))
        self._tally = tally
        self._stage_name: str | None = None
        self._oldest_upload: float | None = None
        self._num_alive: Callable[[], int] = lambda: 0
        self._add_counters()
        self._add_gauges()
        self._add_live_gauges()
        self._own.register(_StoreRequests())

    def _add_counters(self) -> None:
        """What only grows; series that may come later begin at zero, so that a rate sees them."""
        own = self._own
        self._decided = Counter(
            "dladiff_decided_photos", "Photos decided, by status.", ["status"], registry=own
        )
        for status in get_args(RowStatus):
            if status not in ("deferred", "source_gone"):
                self._decided.labels(status=status)
        self._deferred = Counter(
            "dladiff_deferred_sets",
            "Photo sets put off because the environment was at fault, by cause.",
            ["cause"],
            registry=own,
        )
        for cause in _CAUSES:
            self._deferred.labels(cause=cause)
        self._passed_over = Gauge(
            "dladiff_passed_over_files",
            "Files of INPUT that are not taken for photos, by cause; denied: folders.",
            ["cause"],
            registry=own,
        )
        self._targets = Counter(
            "dladiff_target_photos",
            "Protected photos with a face, by whether they reached their target likeness.",
            ["reached"],
            registry=own,
        )
        for reached in ("yes", "no"):
            self._targets.labels(reached=reached)
        self._encoder_targets = Counter(
            "dladiff_encoder_target_photos",
            "The same for one encoder of those in the loss.",
            ["encoder", "reached"],
            registry=own,
        )
        self._left_out = Counter(
            "dladiff_faces_left_out",
            "Faces that were seen and are not protected, by cause.",
            ["cause"],
            registry=own,
        )
        for cause in LEFT_OUT_CAUSES:
            self._left_out.labels(cause=cause)
        self._gpu_seconds = Counter(
            "dladiff_gpu_seconds", "Seconds of accelerator work of decided sets.", registry=own
        )
        self._stage_seconds = Counter(
            "dladiff_stage_seconds",
            "Wall seconds that workers spent on a stage of committed sets.",
            ["stage"],
            registry=own,
        )
        self._stage_sets = Counter(
            "dladiff_stage_sets", "Committed sets that had this stage.", ["stage"], registry=own
        )
        self._set_seconds = Histogram(
            "dladiff_set_seconds",
            "Wall seconds a worker spent on a photo set.",
            buckets=_SET_SECONDS,
            registry=own,
        )
        self._ages = Histogram(
            "dladiff_upload_to_protected_seconds",
            "Seconds from the upload of a photo to its publication.",
            buckets=_AGE_SECONDS,
            registry=own,
        )

    def _add_gauges(self) -> None:
        own = self._own
        self._planned = Gauge(
            "dladiff_planned_photos", "Photos this run set out to decide.", registry=own
        )
        self._planned_sets = Gauge(
            "dladiff_planned_sets", "Photo sets this run set out to decide.", registry=own
        )
        self._stage = Gauge(
            "dladiff_stage", "1 for the stage the driver is in.", ["stage"], registry=own
        )
        self._workers = Gauge(
            "dladiff_workers",
            "Workers of the pool: wanted, and alive now.",
            ["state"],
            registry=own,
        )
        self._workers.labels(state="wanted").set(0)
        self._workers.labels(state="alive").set_function(lambda: self._num_alive())
        self._exit_code = Gauge(
            "dladiff_exit_code", "Exit code of the finished run; -1 before.", registry=own
        )
        self._exit_code.set(-1)
        self._run = Info("dladiff_run", "Which run this is, and its method.", registry=own)
        Info("dladiff_build", "Version of the driver.", registry=own).info(
            {"version": version("dladiff")}
        )

    def _add_live_gauges(self) -> None:
        """Gauges whose value is computed when they are read."""
        tally, own = self._tally, self._own
        Gauge(
            "dladiff_failed_share", "Share of failed and quarantined photos.", registry=own
        ).set_function(lambda: tally.failed_share)
        Gauge(
            "dladiff_backlog_photos",
            "Photos to do that are not decided yet, those left for a later run included.",
            registry=own,
        ).set_function(lambda: tally.backlog)
        Gauge(
            "dladiff_eta_seconds",
            "Estimated seconds until the last planned photo; -1 while unknown.",
            registry=own,
        ).set_function(lambda: -1 if tally.seconds_left is None else tally.seconds_left)
        Gauge(
            "dladiff_photos_per_second", "Photos decided per second, lately.", registry=own
        ).set_function(lambda: tally.photos_per_s)
        Gauge(
            "dladiff_oldest_unprotected_seconds",
            "Age of the oldest photo that was unprotected when the run began; 0: none is left.",
            registry=own,
        ).set_function(lambda: self._oldest_age())

    def names_run(self, run_id: str, method_digest: str) -> None:
        """Says which run this is, once it is known."""
        self._run.info({"run": run_id, "method": method_digest[:12]})

    def started(self, plan: PlanCounts) -> None:
        self._planned.set(plan.num_photos)
        self._planned_sets.set(plan.num_sets)
        for cause in PASSED_OVER:
            self._passed_over.labels(cause=cause).set(plan.passed_over.get(cause, 0))
        if plan.oldest_unprotected_age_s is not None:
            self._oldest_upload = time.time() - plan.oldest_unprotected_age_s

    def stage(self, name: str) -> None:
        if self._stage_name is not None:
            self._stage.labels(stage=self._stage_name).set(0)
        self._stage_name = name
        self._stage.labels(stage=name).set(1)

    def workers(self, num_wanted: int, num_alive: Callable[[], int]) -> None:
        self._workers.labels(state="wanted").set(num_wanted)
        self._num_alive = num_alive

    def worked(self, stage_seconds: Mapping[str, float]) -> None:
        for stage, seconds in stage_seconds.items():
            self._stage_seconds.labels(stage=stage).inc(seconds)
            self._stage_sets.labels(stage=stage).inc()

    def set_decided(self, decided: DecidedSet) -> None:
        for status, number in decided.statuses.items():
            self._decided.labels(status=status).inc(number)
        self._count_reach(decided.reach)
        self._gpu_seconds.inc(decided.gpu_seconds)
        self._set_seconds.observe(decided.seconds)
        self._observe(decided.ages_s)

    def _count_reach(self, reach: Reach) -> None:
        self._targets.labels(reached="yes").inc(reach.num_met)
        self._targets.labels(reached="no").inc(reach.num_missed)
        for cause, number in reach.left_out.items():
            self._left_out.labels(cause=cause).inc(number)
        for encoder in reach.encoders:
            met, missed = reach.met_by.get(encoder, 0), reach.missed_by.get(encoder, 0)
            self._encoder_targets.labels(encoder=encoder, reached="yes").inc(met)
            self._encoder_targets.labels(encoder=encoder, reached="no").inc(missed)

    def released(self, num_photos: int, ages_s: Sequence[float]) -> None:
        self._observe(ages_s)

    def deferred(self, cause: str) -> None:
        self._deferred.labels(cause=cause).inc()

    def finished(self, outcome: RunOutcome) -> None:
        self.stage("finished")
        self.workers(0, lambda: 0)
        self._exit_code.set(outcome.exit_code)

    def to_prom_text(self) -> str:
        """The metrics in Prometheus' text format, for ``runs/<id>/metrics.prom``."""
        return generate_latest(self.registry).decode()

    def _observe(self, ages_s: Sequence[float]) -> None:
        for age_s in ages_s:
            self._ages.observe(age_s)

    def _oldest_age(self) -> float:
        if self._oldest_upload is None or not self._tally.backlog:
            return 0.0
        return time.time() - self._oldest_upload


class _StoreRequests(Collector):
    """The driver's own requests to stores; a worker's are Ray's ``ray_dladiff_store_*``."""

    def collect(self) -> Iterator[Metric]:
        sums = traffic.so_far()
        requests = CounterMetricFamily(
            "dladiff_store_requests", "Requests to stores, each try.", labels=["operation"]
        )
        seconds = CounterMetricFamily(
            "dladiff_store_request_seconds", "Wall seconds in them.", labels=["operation"]
        )
        for operation in traffic.OPERATIONS:
            requests.add_metric([operation], sums.requests[operation])
            seconds.add_metric([operation], sums.seconds.get(operation, 0.0))
        retries = CounterMetricFamily(
            "dladiff_store_retries", "Requests made again after a wait.", labels=["cause"]
        )
        for cause in traffic.RETRIED:
            retries.add_metric([cause], sums.retries[cause])
        yield from (requests, seconds, retries)


def serve(registry: CollectorRegistry, port: int) -> int:
    """Serves metrics over HTTP until the process ends.

    Returns:
        The port, which differs from ``port`` where that is 0.

    Raises:
        ConfigurationError: If the port is taken.
    """
    try:
        server, _ = start_http_server(port, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics on port {port} ({error.strerror}): choose another "
            "--metrics-port, or 0 for any free one"
        ) from None
    return int(server.server_port)
