"""A run with a limit: it does the newest, ends well, and the same command goes on."""

import os
import re
from pathlib import Path

import pytest

from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import unfinished_runs
from pipeline.reporting.displays import plan_line, summary_lines
from pipeline.reporting.tally import Tally
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, photo_image

ALBUM = {"ann/1.png": 1e9, "ann/2.png": 1e9, "ann/3.png": 1e9, "bob/1.png": 2e9 - 9e8}
"""Time of upload by name: three sets at two photos a set, bob's is the newest."""


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for number, (name, uploaded) in enumerate(ALBUM.items()):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo_image(32, 32, number), "PNG"))
        os.utime(path, (uploaded, uploaded))
    return tmp_path / "in"


def run(store: Store, album: Path, tally: Tally | None = None, **limits: float) -> RunOutcome:
    options = RunOptions(**limits)  # type: ignore[arg-type]
    return run_protection(str(album), store, CONFIG, options, tally=tally, pool=OwnProcess(store))


def done(store: Store) -> set[str]:
    return {"/".join(uri.split("/")[-2:]) for uri in newest_state(store)}


def test_max_sets_does_the_newest_and_leaves_the_rest_to_the_next_run(
    local_store: Store, album: Path
) -> None:
    tally = Tally()
    first = run(local_store, album, tally, max_sets=1)
    assert (first.exit_code, first.counts, first.num_later) == (0, {"protected": 1}, 3)
    assert done(local_store) == {"bob/1.png"}
    assert unfinished_runs(local_store) == []
    assert tally.plan is not None
    assert (tally.num_left, tally.backlog) == (0, 3)
    assert "3 left for a later run" in plan_line(tally.plan)
    assert "3 photos left for the next run" in summary_lines(first)[-1]
    second = run(local_store, album)
    assert (second.counts, second.num_later) == ({"protected": 3}, 0)
    assert done(local_store) == set(ALBUM)


def test_the_oldest_unprotected_photo_may_be_one_that_is_left_for_later(
    local_store: Store, album: Path
) -> None:
    run(local_store, album, max_sets=1)
    (metrics,) = (info.key for info in local_store.list() if info.key.endswith("metrics.prom"))
    lines = local_store.read(metrics).decode().splitlines()
    (age,) = (float(line.split()[1]) for line in lines if line.startswith("dladiff_oldest"))
    assert age > 5e8
    assert any(re.fullmatch(r"dladiff_backlog_photos\{.*\} 3.0", line) for line in lines)


def test_max_worker_hours_ends_the_run_between_two_sets(local_store: Store, album: Path) -> None:
    first = run(local_store, album, max_worker_hours=1e-9)
    assert (first.exit_code, first.counts, first.num_later) == (0, {"protected": 1}, 3)
    assert first.message is not None
    assert "--max-worker-hours 1e-09 is spent" in first.message
    assert {row["status"] for row in read_manifest(local_store).to_pylist()} == {"protected"}
    # A worker of a cluster may still decide the set that it had begun: the next run looks.
    assert unfinished_runs(local_store) == [first.run_id]
    second = run(local_store, album, max_worker_hours=1)
    assert (second.exit_code, second.counts, second.num_later) == (0, {"protected": 3}, 0)
    assert unfinished_runs(local_store) == []


def test_limits_that_are_not_reached_change_nothing(local_store: Store, album: Path) -> None:
    outcome = run(local_store, album, max_sets=3, max_worker_hours=1)
    assert (outcome.counts, outcome.num_later, outcome.message) == ({"protected": 4}, 0, None)
