"""The driver's metrics: their values, their labels, and that they name nobody."""

import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import ConfigurationError, StoreThrottled
from pipeline.options import PlanCounts, RunOutcome
from pipeline.reporting.metrics import RunMetrics, serve
from pipeline.reporting.reporter import DecidedSet, Reporter, Reporters
from pipeline.reporting.tally import Tally
from pipeline.storage.store import Store

ALLOWED_LABELS = {"output", "status", "stage", "cause", "le", "operation", "state"}
ALLOWED_LABELS |= {"run", "method", "version", "encoder", "reached"}
OUTPUT = "a1b2c3d4"


def observed() -> tuple[RunMetrics, Reporter]:
    """Metrics, and the hooks of a run that they and its tally hear."""
    tally = Tally()
    metrics = RunMetrics(tally, OUTPUT)
    return metrics, Reporters(tally, metrics)


def finished_run() -> tuple[RunMetrics, Reporter]:
    """The same after a small run."""
    metrics, run = observed()
    run.stage("catalog")
    run.started(
        PlanCounts(
            num_photos=10, num_sets=3, oldest_unprotected_age_s=3600, passed_over={"denied": 2}
        )
    )
    run.stage("protect")
    run.set_decided(DecidedSet({"protected": 4}, seconds=3, gpu_seconds=1.5, ages_s=[50, 4000]))
    run.set_decided(DecidedSet({"protected": 3, "failed": 1}, seconds=30))
    run.deferred("store_throttled")
    return metrics, run


def value_of(metrics: RunMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {**labels, "output": OUTPUT})


def test_counts_by_status_and_cause() -> None:
    metrics, _ = finished_run()
    assert value_of(metrics, "dladiff_planned_photos") == 10
    assert value_of(metrics, "dladiff_planned_sets") == 3
    assert value_of(metrics, "dladiff_passed_over_files", cause="denied") == 2
    assert value_of(metrics, "dladiff_passed_over_files", cause="hidden") == 0
    assert value_of(metrics, "dladiff_decided_photos_total", status="protected") == 7
    assert value_of(metrics, "dladiff_decided_photos_total", status="failed") == 1
    assert value_of(metrics, "dladiff_deferred_sets_total", cause="store_throttled") == 1
    assert value_of(metrics, "dladiff_gpu_seconds_total") == 1.5
    assert value_of(metrics, "dladiff_failed_share") == pytest.approx(1 / 8)


def test_series_that_may_come_begin_at_zero() -> None:
    metrics, _ = observed()
    for status in ("protected", "failed", "quarantined", "skipped"):
        assert value_of(metrics, "dladiff_decided_photos_total", status=status) == 0
    for cause in ("store_denied", "store_throttled", "disk_full", "device_fault", "out_of_memory"):
        assert value_of(metrics, "dladiff_deferred_sets_total", cause=cause) == 0
    for operation in ("read", "write", "head", "list", "copy", "delete"):
        assert value_of(metrics, "dladiff_store_requests_total", operation=operation) is not None
    for cause in ("store_throttled", "store_unreachable"):
        assert value_of(metrics, "dladiff_store_retries_total", cause=cause) is not None


def test_stages_are_sums_and_counts() -> None:
    metrics, run = observed()
    for seconds in (0.25, 1.5, 100.0):
        run.worked({"protect": seconds, "encode": 1.0})
    assert value_of(metrics, "dladiff_stage_seconds_total", stage="protect") == 101.75
    assert value_of(metrics, "dladiff_stage_sets_total", stage="protect") == 3
    assert value_of(metrics, "dladiff_stage_seconds_total", stage="encode") == 3


def test_workers_wanted_and_alive_until_the_run_ends() -> None:
    metrics, run = observed()
    assert value_of(metrics, "dladiff_workers", state="wanted") == 0
    living = [1, 2, 3]
    run.workers(4, lambda: len(living))
    assert value_of(metrics, "dladiff_workers", state="wanted") == 4
    assert value_of(metrics, "dladiff_workers", state="alive") == 3
    living.pop()
    assert value_of(metrics, "dladiff_workers", state="alive") == 2
    run.finished(RunOutcome(run_id="a", exit_code=0))
    assert value_of(metrics, "dladiff_workers", state="alive") == 0


def test_the_run_and_the_build_are_told() -> None:
    metrics, _ = observed()
    metrics.names_run("20261129T0800Z-ab12", "f" * 64)
    labels = {"run": "20261129T0800Z-ab12", "method": "f" * 12}
    assert value_of(metrics, "dladiff_run_info", **labels) == 1
    assert value_of(metrics, "dladiff_build_info", version=version("dladiff")) == 1


def test_a_stores_requests_retries_and_seconds_are_counted(tmp_path: Path) -> None:
    metrics, _ = observed()

    def counted(operation: str) -> float:
        value = value_of(metrics, "dladiff_store_requests_total", operation=operation)
        assert value is not None
        return value

    before = {one: counted(one) for one in ("read", "write", "head", "delete")}
    store = Store(str(tmp_path), retry_delays_s=[0.001, 0.001])
    store.write("a", b"content")
    assert store.read("a") == b"content"
    assert not store.exists("b")
    store.delete(["a"])
    assert {one: counted(one) - number for one, number in before.items()} == {
        "read": 1,
        "write": 1,
        "head": 1,
        "delete": 1,
    }
    retries = value_of(metrics, "dladiff_store_retries_total", cause="store_throttled")
    answers = iter([StoreThrottled("slow down"), StoreThrottled("slow down"), None])

    def answer(*_: object) -> None:
        trouble = next(answers)
        if trouble is not None:
            raise trouble

    store._backend.put = answer  # type: ignore[method-assign, assignment]
    store.write("a", b"content")
    assert counted("write") - before["write"] == 4
    now = value_of(metrics, "dladiff_store_retries_total", cause="store_throttled")
    assert now is not None
    assert retries is not None
    assert now - retries == 2
    seconds = value_of(metrics, "dladiff_store_request_seconds_total", operation="write")
    assert seconds is not None
    assert seconds > 0


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
    run.set_decided(DecidedSet({"protected": 2}, seconds=1))
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
    port = serve(metrics.registry, 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b'dladiff_planned_photos{output="a1b2c3d4"} 10.0' in answer.read()
    with pytest.raises(ConfigurationError, match="--metrics-port"):
        serve(observed()[0].registry, port)
