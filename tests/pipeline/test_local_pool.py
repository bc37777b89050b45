"""A small run without Ray: real processes that die, hang or cannot load, and what becomes of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.config import RunConfig, load_config
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.local_pool import LocalPool
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state
from pipeline.run import run_protection
from pipeline.storage.store import open_store
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings
from tests.pipeline.stepping import load_stepping, parts_seen
from tests.sample_photos import encode, face_album, photo_image

pytestmark = pytest.mark.slow

DEADLY_HEIGHT, HANGING_HEIGHT = 65, 66
"""Of a photo whose set ends its process, or never ends."""


def load_negative(_: WorkerSettings) -> Protector:
    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        heights = {one.image.shape[0] for one in photos}
        if DEADLY_HEIGHT in heights:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGING_HEIGHT in heights:
            time.sleep(600)
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return protect


def load_nothing(_: WorkerSettings) -> Protector:
    raise ConfigurationError("no such weights")


def die_at_start(_: WorkerSettings) -> Protector:
    os._exit(7)


def config_of(*overrides: str) -> RunConfig:
    quick = ["worker_memory_gb=0.1", "canary.num_sets=0", *overrides]
    return load_config("zero-shot", overrides=quick)


def write_people(album: Path, heights: Sequence[int]) -> None:
    for number, height in enumerate(heights):
        (album / str(number)).mkdir(parents=True)
        content = encode(photo_image(height, 64, number), "PNG")
        (album / str(number) / "1.png").write_bytes(content)


def run(tmp_path: Path, pool: LocalPool, *overrides: str) -> RunOutcome:
    album, output = str(tmp_path / "in"), str(tmp_path / "out")
    outcome = run_protection(album, output, config_of(*overrides), RunOptions(), pool=pool)
    assert outcome.message is None, outcome.message  # as where a busy machine's CI ends the tests
    return outcome


@pytest.mark.parametrize("overrides", [("workers=1",), ("workers=2",), ("workers=1", "overlap")])
def test_a_set_that_ends_its_process_is_given_up_and_no_other(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    changes = [one.replace("overlap", "stage_while_computing=true") for one in overrides]
    write_people(tmp_path / "in", [64, 64, DEADLY_HEIGHT, 64])
    outcome = run(tmp_path, LocalPool(load_negative), *changes)
    assert outcome.counts == {"protected": 3, "quarantined": 1}, outcome
    states = newest_state(open_store(str(tmp_path / "out"))).values()
    assert {one.identity for one in states if one.status == "quarantined"} == {"2"}


def test_a_set_that_hangs_is_ended_and_given_up(tmp_path: Path) -> None:
    write_people(tmp_path / "in", [64, HANGING_HEIGHT])
    changes = ["workers=1", "set_time_limit_s=10", "max_crashed_attempts=1"]
    outcome = run(tmp_path, LocalPool(load_negative), *changes)
    assert outcome.counts == {"protected": 1, "quarantined": 1}, outcome


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_cannot_load_end_the_run_with_the_reason(tmp_path: Path, workers: int) -> None:
    write_people(tmp_path / "in", [64, 64])
    with pytest.raises(PipelineError, match="no such weights"):
        run(tmp_path, LocalPool(load_nothing), f"workers={workers}")


def test_workers_that_die_at_their_start_end_the_run(tmp_path: Path) -> None:
    write_people(tmp_path / "in", [64])
    with pytest.raises(PipelineError, match="broke: a process ended with 7"):
        run(tmp_path, LocalPool(die_at_start))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, number: signal.Signals) -> None:
    with endless_command(tmp_path) as process:
        attempts = tmp_path.glob
        deadline = time.monotonic() + 120
        while not list(attempts("out/runs/*/attempts/*/*.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        workers = list(seconds_of_children(process.pid))
        assert workers
        process.send_signal(number)
        code = process.wait(60)
        assert code == (-number if number == signal.SIGKILL else 3)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_the_commands_lines_move_within_a_set_and_its_worker_computes_with_one_thread(
    tmp_path: Path,
) -> None:
    with endless_command(tmp_path, steps=2000) as process:
        assert process.stderr is not None
        shares, loaded = list[float](), dict[int, dict[str, float]]()
        for line in process.stderr:
            if found := re.search(
                r"0 of 1 photo, 0 of 1 set, ([\d.]+) % done.* left$", line.strip()
            ):
                shares.append(float(found[1]))
                loaded = loaded or seconds_of_children(process.pid)
            if len(set(shares)) == 3:
                break
        assert 0 < shares[0] < shares[-1] < 100, shares
        assert shares == sorted(shares)
        by_worker = seconds_of_children(process.pid)
        worker = max(by_worker, key=lambda pid: sum(by_worker[pid].values()))
        # Since steps began: what loads the libraries is another thread.
        spent = {
            thread: seconds - loaded[worker].get(thread, 0.0)
            for thread, seconds in by_worker[worker].items()
        }
        busiest, *others = sorted(spent.values(), reverse=True)
        assert busiest > 5
        assert sum(others) < 0.1 * busiest, spent
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        assert b"OMP_WAIT_POLICY=PASSIVE" in environment


@contextmanager
def endless_command(tmp_path: Path, steps: int = 100_000) -> Iterator[subprocess.Popen[str]]:
    """The command on one photo, with more steps than anybody waits for; killed at the end."""
    face_album(tmp_path / "in", {"ann": 1})
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "protect"]
    command += [str(tmp_path / "in"), str(tmp_path / "out"), "--preset", "zero-shot"]
    # What a person's shell says of OpenMP is not what is tested.
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    process = subprocess.Popen(
        [*command, "--set", f"loop.num_steps={steps}"], stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def seconds_of_children(pid: int) -> dict[int, dict[str, float]]:
    """CPU seconds so far of each thread of each child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): seconds_by_thread(int(child)) for child in children}


def seconds_by_thread(pid: int) -> dict[str, float]:
    """CPU seconds of each thread of a process so far."""
    ticks, found = os.sysconf("SC_CLK_TCK"), dict[str, float]()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        fields = path.read_text().rpartition(")")[2].split()
        found[path.parent.name] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def test_steps_within_a_set_are_seen_while_it_works(tmp_path: Path) -> None:
    write_people(tmp_path / "in", [64])
    places, config = (str(tmp_path / "in"), str(tmp_path / "out")), config_of()
    within = parts_seen(
        lambda tally: run_protection(*places, config, tally=tally, pool=LocalPool(load_stepping))
    )
    assert len(within) >= 3


def test_a_moved_album_is_copied_without_loading_any_model(tmp_path: Path) -> None:
    write_people(tmp_path / "in", [64, 80])
    assert run(tmp_path, LocalPool(load_negative)).counts == {"protected": 2}
    for number in (0, 1):
        (tmp_path / "in" / str(number)).rename(tmp_path / "in" / f"moved-{number}")
    outcome = run(tmp_path, LocalPool(load_nothing), "max_gone=1.0")
    assert outcome.counts == {"copied": 2}


def test_where_no_photo_can_be_protected_the_run_ends_with_the_reason(tmp_path: Path) -> None:
    write_people(tmp_path / "in", [64])
    with pytest.raises(PipelineError, match="not even the built-in photo was protected"):
        run(tmp_path, LocalPool(load_broken))
    assert not newest_state(open_store(str(tmp_path / "out")))


def load_broken(_: WorkerSettings) -> Protector:
    def protect(*_: object) -> SetResult:
        raise ZeroDivisionError

    return protect
