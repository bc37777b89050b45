"""``kill -9``, SIGSTOP and a second run, to real processes at chosen moments."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.storage.store import Store
from tests.faults.album import PHOTOS, check_all_protected_once, num_decided, write_photos
from tests.faults.deadly_run import LOCK_TTL_S, ProcessRun

pytestmark = pytest.mark.faults

BEFORE = {
    "taking the lock": "locks/0",
    "planning": "runs/.*/plan",
    "reading": "runs/.*/attempts/",
    "staging the second image": "runs/.*/data/.*/001",
    "commit": "runs/.*/commits/",
    "publishing": "images/",
    "publishing the second image of a set": "images/.*/[24]",
    "folding": "manifest/",
    "finishing": "runs/.*/_FINISHED",
}
"""Moments, and what is about to change then."""


@pytest.mark.parametrize("moment", BEFORE)
def test_a_run_killed_in_any_stage_is_finished_by_the_next(tmp_path: Path, moment: str) -> None:
    """By the same command in every second stage, else under another run id."""
    album, output = write_photos(tmp_path / "in"), tmp_path / "out"
    code, _, log = ProcessRun(album, output, "first", BEFORE[moment]).end()
    assert code == -signal.SIGKILL, log
    decided = num_decided(Store(str(output)))
    second_id = "first" if [*BEFORE].index(moment) % 2 else "second"
    if second_id == "second":
        time.sleep(LOCK_TTL_S)
    code, computed, log = ProcessRun(album, output, second_id).end()
    assert (code, computed) == (0, len(PHOTOS) - decided), log
    check_all_protected_once(Store(str(output)))


def test_a_run_stopped_between_commit_and_publish_never_undoes_a_newer_one(tmp_path: Path) -> None:
    album, output = write_photos(tmp_path / "in"), tmp_path / "out"
    old = ProcessRun(album, output, "old", "images/ann/", signal.SIGSTOP)
    old.wait_until_stopped()
    time.sleep(LOCK_TTL_S + 1)
    newer = {**PHOTOS, "ann/1.png": 91, "ann/2.png": 92, "ann/3.png": 93, "ann/4.png": 94}
    write_photos(album, newer)
    code, _, log = ProcessRun(album, output, "new").end()
    assert code == 0, log
    served = {path: path.read_bytes() for path in (output / "images").rglob("*.png")}
    os.kill(old.pid, signal.SIGCONT)
    code, _, log = old.end()
    assert code == 1
    assert "LockLostError" in log
    assert {path: path.read_bytes() for path in (output / "images").rglob("*.png")} == served
    code, computed, log = ProcessRun(album, output, "after").end()
    assert (code, computed) == (0, 0), log


def test_of_two_runs_on_one_output_the_second_is_turned_away(tmp_path: Path) -> None:
    album, output = write_photos(tmp_path / "in"), tmp_path / "out"
    first = ProcessRun(album, output, "first", "runs/.*/commits/", signal.SIGSTOP)
    first.wait_until_stopped()
    command = [str(Path(sys.executable).with_name("dladiff")), "protect", str(album), str(output)]
    second = subprocess.run(
        [*command, "--preset", "zero-shot", "--run-id", "second"], capture_output=True, text=True
    )
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert "first" in second.stdout + second.stderr
    code, computed, log = first.end()
    assert (code, computed) == (0, len(PHOTOS)), log
    check_all_protected_once(Store(str(output)))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_was_full_loses_nothing(tmp_path: Path) -> None:
    album, disk = write_photos(tmp_path / "in"), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "drill", str(disk)])
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        code, _, log = ProcessRun(album, disk / "out", "full").end()
        assert code == 3, log
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        decided = num_decided(Store(str(disk / "out")))
        assert decided < len(PHOTOS)
        code, computed, log = ProcessRun(album, disk / "out", "full").end()
        assert (code, computed) == (0, len(PHOTOS) - decided), log
        check_all_protected_once(Store(str(disk / "out")))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
