"""Folder to folder with the real method: what a person and a scheduler rely on.

On a real local Ray where processes matter; what does not hang on them computes in this process,
which loads the models once.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline import ray_pool
from pipeline.config import RunConfig, load_config
from pipeline.errors import ConfigurationError
from pipeline.images.coding import decode_coded
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import read_plan, unfinished_runs
from pipeline.pool import Pool, PoolSize
from pipeline.records import PhotoSet
from pipeline.reporting.labelled import output_label
from pipeline.run import run_protection
from pipeline.storage.store import open_store
from pipeline.worker.protector import Protector, load_protector
from pipeline.worker.settings import SetOutcome, WorkerSettings
from tests.pipeline.mortal_run import OwnProcess
from tests.sample_photos import face_album, jpeg_bytes, transparent_png, write_album

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

pytestmark = pytest.mark.slow


QUICK = (
    "loop.num_steps=2",
    "recognisers=[{name: sface, kind: sface}]",
    "threads=1",
    "worker_memory_gb=0.5",
    "workers=1",
)
"""The real method with two iterations, and one worker: each one loads models for seconds."""


def quick_config(*overrides: str) -> RunConfig:
    return load_config("zero-shot", overrides=[*QUICK, *overrides])


def quick_command(album: Path, output: Path, run_id: str, *overrides: str) -> list[str]:
    """``dladiff protect`` with the same settings."""
    command = [str(Path(sys.executable).with_name("dladiff")), "protect", str(album), str(output)]
    changes = [part for change in (*QUICK, *overrides) for part in ("--set", change)]
    return [*command, "--preset", "zero-shot", "--run-id", run_id, *changes]


@cache
def method_here() -> Protector:
    """The real method in this process."""
    return load_protector(WorkerSettings("", "", quick_config(), "", "", ""))


class OwnModels(OwnProcess):
    """A worker in this process that computes with the real method."""

    def _protect(self, photos: Sequence[Photo], *rest: Any) -> SetResult:
        return method_here()(photos, *rest)


@pytest.fixture(scope="module", autouse=True)
def ray_logs() -> Iterator[Path]:
    """Ray, and the folder with the logs of its processes."""
    yield ray_pool.start_local(num_cpus=3)
    ray.shutdown()


@dataclass
class FirstRun:
    """An album after its first run, as it can be had again and again."""

    folder: Path
    outcome: RunOutcome
    log: list[dict[str, str]]
    """Of the workers, as JSON and verbose."""

    @property
    def album(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, ray_logs: Path) -> FirstRun:
    folder = tmp_path_factory.mktemp("first")
    album = face_album(folder / "in", {"ann": 3, "bob": 2})
    outcome = protect(album, folder / "out", options=RunOptions(log_json=True, verbose=True))
    shutil.copytree(folder, folder.with_name("kept"))
    return FirstRun(folder, outcome, worker_log(ray_logs))


@pytest.fixture
def first(first_run: FirstRun) -> FirstRun:
    """The same, at the same place, whatever the test before made of it."""
    shutil.rmtree(first_run.folder)
    shutil.copytree(first_run.folder.with_name("kept"), first_run.folder)
    return first_run


def worker_log(ray_logs: Path) -> list[dict[str, str]]:
    """JSON lines of our loggers in the logs of Ray's workers so far."""
    lines = [
        line
        for path in ray_logs.glob("worker-*.err")
        for line in path.read_text().splitlines()
        if line.startswith("{")
    ]
    return [json.loads(line) for line in lines]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def protect(
    album: Path,
    output: Path,
    *overrides: str,
    options: RunOptions | None = None,
    pool: Pool | None = None,
) -> RunOutcome:
    config = quick_config(*overrides)
    pool = pool or ray_pool.RayPool()
    return run_protection(str(album), str(output), config, options or RunOptions(), pool=pool)


def protect_here(
    album: Path, output: Path, *overrides: str, options: RunOptions | None = None
) -> RunOutcome:
    """The same without Ray."""
    pool = OwnModels(open_store(str(output)))
    return protect(album, output, *overrides, options=options, pool=pool)


def images(output: Path) -> dict[str, bytes]:
    folder = output / "images"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def test_everything_is_protected_once_and_a_second_run_does_nothing(first: FirstRun) -> None:
    outcome = first.outcome
    assert (outcome.exit_code, outcome.counts, outcome.num_sets) == (0, {"protected": 5}, 2)
    assert sorted(images(first.output)) == [f"ann/{i}.png" for i in range(3)] + [
        f"bob/{i}.png" for i in range(2)
    ]
    assert verify_output(str(first.output), str(first.album)).num_findings == 0

    class NoPool(ray_pool.RayPool):
        def session(self, config: RunConfig, num_sets: int) -> NoReturn:
            raise AssertionError("nothing is to do")

    second = protect(first.album, first.output, pool=NoPool())
    assert (second.exit_code, second.counts, second.num_sets) == (0, {}, 0)
    assert unfinished_runs(open_store(str(first.output))) == []


def test_run_json_and_metrics_hold_no_identity(first: FirstRun) -> None:
    folder = first.output / "runs" / first.outcome.run_id
    assert json.loads((folder / "run.json").read_text())["config"]["method"]["seed"] == 0
    text = (folder / "metrics.prom").read_text()
    label = f'output="{output_label(open_store(str(first.output)).uri)}"'
    assert f'dladiff_decided_photos_total{{{label},status="protected"}} 5.0' in text
    assert re.search(r"dladiff_stage_sets_total\{.*\} 2.0", text)  # ann's and bob's
    assert not re.search(r"\bann\b", text)


def test_log_json_and_verbose_reach_the_workers(first: FirstRun) -> None:
    levels = {entry["message"].partition(" ")[0]: entry["level"] for entry in first.log}
    assert levels["models"] == "info"
    assert levels["photo"] == "debug"  # which may name a person
    assert any(" of ann: done" in entry["message"] for entry in first.log)
    text = json.dumps([entry for entry in first.log if entry["level"] != "debug"])
    assert not re.search(r"\b(ann|bob)\b", text)


def test_added_changed_touched_and_deleted_photos(first: FirstRun) -> None:
    album, output = first.album, first.output
    before = images(output)
    face_album(album, {"cat": 1})
    shutil.copy(album / "ann/0.png", album / "bob/1.png")
    (album / "ann/1.png").touch()
    (album / "ann/2.png").unlink()
    outcome = protect_here(album, output)
    assert outcome.exit_code == 0
    states = newest_state(open_store(str(output)))
    by_name = {"/".join(uri.rsplit("/", 2)[-2:]): state for uri, state in states.items()}
    assert {name: state.status for name, state in by_name.items()} == {
        "ann/0.png": "protected",
        "ann/1.png": "protected",
        "ann/2.png": "source_gone",
        "bob/0.png": "protected",
        "bob/1.png": "protected",
        "cat/0.png": "protected",
    }
    after = images(output)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {"bob/1.png", "cat/0.png"}
    assert verify_output(str(output), str(album)).num_findings == 0
    assert protect_here(album, output).num_sets == 0


class _Backwards(ray_pool.RayPool):
    """Takes the sets of a plan from its end, and remembers in which order that was."""

    order: ClassVar[list[str]] = []

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        self.order[:] = [photo_set.identity for photo_set in reversed(photo_sets)]
        yield from super().protect_sets(photo_sets[::-1], settings, size)


def test_the_same_bytes_for_any_number_and_order_of_workers(
    first: FirstRun, tmp_path: Path
) -> None:
    outcome = protect(first.album, tmp_path / "two", "workers=2", pool=_Backwards())
    assert outcome.counts == {"protected": 5}
    planned = read_plan(open_store(str(first.output)), first.outcome.run_id)["photo_set"]
    forwards = [PhotoSet.from_json(text).identity for text in planned.to_pylist()]
    assert sorted(forwards) == ["ann", "bob"]
    assert _Backwards.order == forwards[::-1]
    assert images(tmp_path / "two") == images(first.output)


def test_bad_photos_get_a_reason_and_the_rest_is_protected(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dladiff")
    album = face_album(tmp_path / "in", {"ann": 1})
    good = (album / "ann/0.png").read_bytes()
    write_album(
        album,
        {
            "ann/truncated.png": good[: len(good) // 2],
            "ann/empty.jpg": b"",
            "ann/text.jpg": b"no photo at all",
            "ann/0.jpg": transparent_png(decode_coded(good), 254),  # under a false name
            "dan/nobody.jpg": jpeg_bytes(96, 96),
        },
    )
    outcome = protect_here(album, output)
    assert outcome.exit_code == 0
    rows = read_manifest(open_store(str(output))).to_pylist()
    reasons = {row["source_uri"].rsplit("/", 1)[-1]: (row["status"], row["reason"]) for row in rows}
    assert len(rows) == 6
    for name in ("truncated.png", "empty.jpg", "text.jpg", "nobody.jpg"):
        assert reasons[name][0] == "skipped"
        assert reasons[name][1]
    assert sorted(images(output)) == ["ann/0.jpg", "ann/0.png"]
    (notes,) = (row["source_notes"] for row in rows if row["source_uri"].endswith("0.jpg"))
    assert notes == []  # transparency is kept: a PNG under another name stays one
    assert verify_output(str(output), str(album)).num_findings == 0
    assert "models loaded" in caplog.text
    assert not re.search(r"\b(ann|dan)\b", caplog.text)


POISON, HANG, ONCE = 201, 202, 203
"""Heights of photos that always kill their process, hang it, or kill it the first time."""


def load_sabotaged(settings: WorkerSettings) -> Protector:
    """No method but the negative of a photo, unless the photo ends its process or hangs it."""
    marker = Path(settings.output_uri.removeprefix("file://")) / "killed"

    def sabotaged(photos: Sequence[Photo], *_: object) -> SetResult:
        height = photos[0].image.shape[0]
        if height == POISON or (height == ONCE and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if height == HANG:
            time.sleep(600)
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return sabotaged


def test_sets_that_kill_or_hang_their_process_are_quarantined(tmp_path: Path, output: Path) -> None:
    album = tmp_path / "in"
    for identity, side in {"fine": 200, "hang": HANG, "once": ONCE, "poison": POISON}.items():
        face_album(album, {identity: 1}, side)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for _ in range(3):
        outcome = protect(
            album,
            output,
            "workers=2",
            "max_crashed_attempts=2",
            "set_time_limit_s=5",  # of computing: starting and loading have their own
            "max_failed=0.1",
            pool=ray_pool.RayPool(load_sabotaged),
        )
        # A busy machine may defer a set; then the same command goes on, as a person would.
        if outcome.exit_code != 3:
            break
    assert outcome.exit_code == 2
    states = newest_state(open_store(str(output)))
    assert {state.identity: state.status for state in states.values()} == {
        "fine": "protected",
        "once": "protected",
        "hang": "quarantined",
        "poison": "quarantined",
    }
    again = protect_here(album, output, options=RunOptions(retry_quarantined=True))
    assert (again.exit_code, again.counts) == (0, {"protected": 2})


def test_a_killed_driver_is_finished_by_another_run(tmp_path: Path, output: Path) -> None:
    album = face_album(tmp_path / "in", dict.fromkeys("abcdef", 1))
    ttl = "lock_ttl_s=15"  # so long the next run waits for a sign of life
    with subprocess.Popen(
        quick_command(album, output, "killed", ttl),
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        start_new_session=True,
    ) as process:
        commits = output / "runs/killed/commits"
        deadline = time.monotonic() + 240
        while len(list(commits.glob("*.json")) if commits.exists() else []) < 2:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    decided = len(list(commits.glob("*.json")))
    outcome = protect_here(album, output, options=RunOptions(wait=True))
    assert outcome.exit_code == 0
    rows = read_manifest(open_store(str(output))).to_pylist()
    assert sorted(row["identity"] for row in rows) == list("abcdef")  # nothing lost, nothing twice
    assert outcome.counts["protected"] <= 6 - decided + 1  # at most the set in flight again
    assert verify_output(str(output), str(album)).num_findings == 0
    assert unfinished_runs(open_store(str(output))) == []


def test_sigterm_folds_what_is_decided_and_exits_with_3(tmp_path: Path, output: Path) -> None:
    album = face_album(tmp_path / "in", dict.fromkeys("abcdefgh", 1))
    stopped = quick_command(album, output, "stopped", "loop.num_steps=20")
    command = [*stopped, "--canary", "0"]  # published as they are done
    with subprocess.Popen(command) as process:
        images_folder = output / "images"
        while not list(images_folder.rglob("*.*")) if images_folder.exists() else True:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 3
    rows = read_manifest(open_store(str(output))).to_pylist()
    statuses = [row["status"] for row in rows]
    assert len(rows) == 8
    assert "protected" in statuses
    assert "deferred" in statuses


def test_another_method_is_refused_with_the_difference(first: FirstRun) -> None:
    album, output = first.album, first.output
    with pytest.raises(ConfigurationError, match=r"budget\.zero_shot_levels: 11\.0 -> 8"):
        protect(album, output, "budget.zero_shot_levels=8")
    eight = "budget.zero_shot_levels=8"
    kept = protect_here(album, output, eight, options=RunOptions(on_method_change="keep"))
    assert kept.num_sets == 0
    redone = protect_here(album, output, eight, options=RunOptions(on_method_change="reprotect"))
    assert redone.counts == {"protected": 5}
    assert verify_output(str(output), str(album)).num_findings == 0
