"""The driver's metrics: their values, their labels, and that they name nobody."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import ConfigurationError
from pipeline.options import PlanCounts, RunOutcome
from pipeline.reporting.metrics import RunMetrics
from pipeline.reporting.reporter import Reporter, Reporters
from pipeline.reporting.tally import Tally

ALLOWED_LABELS = {"status", "stage", "cause", "encoder", "reached", "le"}


def observed() -> tuple[RunMetrics, Reporter]:
    """Metrics, and the hooks of a run that they and its tally hear."""
    tally = Tally()
    metrics = RunMetrics(tally)
    return metrics, Reporters(tally, metrics)


def finished_run() -> tuple[RunMetrics, Reporter]:
    """The same after a small run."""
    metrics, run = observed()
    run.stage("catalog")
    run.started(PlanCounts(num_photos=10, num_sets=3, oldest_unprotected_age_s=3600))
    run.stage("protect")
    run.set_decided({"protected": 4}, seconds=3, gpu_seconds=1.5, ages_s=[50, 4000])
    run.set_decided({"protected": 3, "failed": 1}, seconds=30)
    run.deferred("store_throttled")
    return metrics, run


def value_of(metrics: RunMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_counts_by_status_and_cause() -> None:
    metrics, _ = finished_run()
    assert value_of(metrics, "dladiff_planned_photos") == 10
    assert value_of(metrics, "dladiff_planned_sets") == 3
    assert value_of(metrics, "dladiff_decided_photos_total", status="protected") == 7
    assert value_of(metrics, "dladiff_decided_photos_total", status="failed") == 1
    assert value_of(metrics, "dladiff_deferred_sets_total", cause="store_throttled") == 1
    assert value_of(metrics, "dladiff_gpu_seconds_total") == 1.5
    assert value_of(metrics, "dladiff_failed_share") == pytest.approx(1 / 8)


def test_backlog_age_and_waiting_times() -> None:
    metrics, _ = finished_run()
    assert value_of(metrics, "dladiff_backlog_photos") == 2
    age = value_of(metrics, "dladiff_oldest_unprotected_seconds")
    assert age == pytest.approx(3600, abs=5)
    assert value_of(metrics, "dladiff_upload_to_protected_seconds_bucket", le="60.0") == 1
    assert value_of(metrics, "dladiff_upload_to_protected_seconds_count") == 2
    assert value_of(metrics, "dladiff_set_seconds_bucket", le="5.0") == 1


def test_nothing_is_unprotected_once_the_backlog_is_gone() -> None:
    metrics, run = finished_run()
    run.set_decided({"protected": 2}, seconds=1)
    assert value_of(metrics, "dladiff_backlog_photos") == 0
    assert value_of(metrics, "dladiff_oldest_unprotected_seconds") == 0


def test_one_stage_at_a_time_and_the_exit_code_at_the_end() -> None:
    metrics, run = finished_run()
    assert value_of(metrics, "dladiff_stage", stage="catalog") == 0
    assert value_of(metrics, "dladiff_stage", stage="protect") == 1
    assert value_of(metrics, "dladiff_exit_code") == -1
    run.finished(RunOutcome(run_id="zoe-2026", exit_code=3))
    assert value_of(metrics, "dladiff_stage", stage="protect") == 0
    assert value_of(metrics, "dladiff_exit_code") == 3


def test_the_text_carries_no_name_and_only_the_agreed_labels() -> None:
    metrics, run = finished_run()
    run.message("looked at s3://photos/zoe/1.jpg")
    run.finished(RunOutcome(run_id="zoe-2026", exit_code=0, message="zoe is done"))
    text = metrics.to_prom_text()
    assert "zoe" not in text
    families = list(text_string_to_metric_families(text))
    assert len(families) >= 12
    for family in families:
        assert family.name.startswith("dladiff_")
        for sample in family.samples:
            assert set(sample.labels) <= ALLOWED_LABELS


def test_metrics_are_served_and_a_taken_port_is_refused_with_the_remedy() -> None:
    metrics, _ = finished_run()
    port = metrics.serve(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b"dladiff_planned_photos 10.0" in answer.read()
    with pytest.raises(ConfigurationError, match="--metrics-port"):
        observed()[0].serve(port)
