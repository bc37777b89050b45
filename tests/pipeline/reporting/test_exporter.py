"""What is told of an OUTPUT while nothing runs: times that runs left, and whether one works now."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.options import RunOptions
from pipeline.output.lock import OutputLock
from pipeline.output.service_level import read_service_level, record_run
from pipeline.reporting.labelled import output_label
from pipeline.reporting.output_metrics import OutputMetrics
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, photo_image, write_album

PREFIX = "dladiff_output_"
ALL = CONFIG.operation


def told(metrics: OutputMetrics) -> dict[tuple[str, str], float]:
    """Values by OUTPUT's label and name, through Prometheus' own parser."""
    return {
        (sample.labels["output"], sample.name.removeprefix(PREFIX)): sample.value
        for family in text_string_to_metric_families(metrics.to_prom_text())
        for sample in family.samples
    }


@pytest.fixture
def album(tmp_path: Path) -> str:
    names = [f"ann/{number}.png" for number in range(6)]
    photos = {name: encode(photo_image(32, 32, seed), "PNG") for seed, name in enumerate(names)}
    return str(write_album(tmp_path / "in", photos))


def test_before_a_first_run_every_time_is_zero(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    label = output_label(store.uri)
    found = told(OutputMetrics([store]))
    assert found[label, "readable"] == 1
    assert found[label, "last_exit_code"] == -1
    assert found[label, "last_success_timestamp_seconds"] == 0
    assert found[label, "unprotected_since_timestamp_seconds"] == 0


def test_a_whole_run_protects_all_that_came_before_its_listing(tmp_path: Path, album: str) -> None:
    store, begin = Store(str(tmp_path / "out")), time.time()
    run_protection(album, store, CONFIG, pool=OwnProcess(store))
    found = told(OutputMetrics([store]))
    label = output_label(store.uri)
    since = found[label, "unprotected_since_timestamp_seconds"]
    ended = found[label, "last_success_timestamp_seconds"]
    assert begin <= since <= ended <= time.time()
    assert found[label, "last_run_timestamp_seconds"] == ended
    assert found[label, "last_exit_code"] == 0


def test_what_a_limit_leaves_is_unprotected_since_its_upload(tmp_path: Path, album: str) -> None:
    store, old = Store(str(tmp_path / "out")), time.time() - 5000
    for path in Path(album).rglob("*.png"):
        os.utime(path, (old, old))
    run_protection(album, store, CONFIG, RunOptions(max_sets=1), pool=OwnProcess(store))
    level = read_service_level(store)
    assert level is not None
    assert level.last_exit_code == 0  # a limit that a person set
    assert level.unprotected_since == pytest.approx(old, abs=1)
    run_protection(album, store, CONFIG, pool=OwnProcess(store))
    level = read_service_level(store)
    assert level is not None
    assert level.unprotected_since > old + 4000


def test_a_run_that_fails_leaves_the_last_success(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record_run(store, "a", 0, now=1000, listed_at=900, oldest_left=None, num_left=0, operation=ALL)
    later = record_run(store, "a", 3, 2000, 1900, None, 5, ALL)
    assert (later.last_run_at, later.last_exit_code) == (2000, 3)
    assert later.last_success_at == 1000
    assert later.unprotected_since == 900  # of what is left no time is known
    assert record_run(store, "a", 3, 3000, 2900, 2500.0, 1, ALL).unprotected_since == 2500


def test_the_name_chosen_for_an_output_is_its_label_here_too(tmp_path: Path, album: str) -> None:
    store = Store(str(tmp_path / "out"))
    operation = CONFIG.operation.model_copy(update={"output_label": "album-eu"})
    config = CONFIG.model_copy(update={"operation": operation})
    run_protection(album, store, config, pool=OwnProcess(store))
    assert told(OutputMetrics([store]))["album-eu", "last_exit_code"] == 0
    [prom] = (tmp_path / "out/runs").rglob("metrics.prom")
    assert 'dladiff_exit_code{output="album-eu"} 0.0' in prom.read_text()


def test_a_run_that_works_now_is_seen(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    label, metrics = output_label(store.uri), OutputMetrics([store])
    assert told(metrics)[label, "run_alive"] == 0
    with OutputLock(store, "now", 120.0):
        assert told(metrics)[label, "run_alive"] == 1


def test_an_output_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    bad, good = Store(str(tmp_path / "bad")), Store(str(tmp_path / "good"))
    bad.write("service.json", b"[1]")
    record_run(good, "good", 0, 1000, 900, None, 0, ALL)
    found = told(OutputMetrics([bad, good]))
    assert found[output_label(bad.uri), "readable"] == 0
    assert (output_label(bad.uri), "last_exit_code") not in found
    assert found["good", "last_success_timestamp_seconds"] == 1000
    with pytest.raises(PipelineError, match="edited"):
        read_service_level(bad)


@pytest.mark.usefixtures("restored_logging")
def test_a_textfile_is_replaced_in_one_step(tmp_path: Path) -> None:
    record_run(Store(str(tmp_path / "out")), "mine", 0, 1000, 900, None, 0, ALL)
    file = tmp_path / "textfile/dladiff.prom"
    arguments = ["exporter", str(tmp_path / "out"), "--textfile", str(file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "cannot write" in done.stderr
    file.parent.mkdir()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    line = 'dladiff_output_last_success_timestamp_seconds{output="mine"} 1000.0'
    assert line in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["dladiff.prom"]


def test_the_command_serves_until_it_is_ended(tmp_path: Path) -> None:
    record_run(Store(str(tmp_path)), "mine", 0, 1000, 900, None, 0, ALL)
    command = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    command += ["exporter", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b'last_exit_code{output="mine"} 0.0' in answer.read()
        process.terminate()
