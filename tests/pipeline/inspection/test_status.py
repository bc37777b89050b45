"""``status`` gives a run in numbers, while it works, stopped and finished."""

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.inspection.status import read_status, status_lines
from pipeline.output.fold import Fold, write_part
from pipeline.output.lock import OutputLock, read_lock
from pipeline.output.runs import finish_run
from pipeline.reasons import Reason
from pipeline.records import photo_row
from pipeline.storage.store import open_store
from tests.pipeline.protected_album import ProtectedAlbum


def test_a_finished_run(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    status = read_status(album.store)
    assert (status.run_id, status.state, status.exit_code) == ("run-1", "finished", 0)
    assert (status.num_planned, status.num_planned_sets, status.num_sets) == (4, 2, 2)
    assert status.counts == status.output_counts == {"protected": 4}
    assert status.photos_per_s > 0
    assert status.lock is None
    lines = status_lines(status)
    assert lines[0] == "run         run-1, finished, exit code 0"
    assert "decided     protected 4 (2 sets)" in lines


@pytest.mark.parametrize("is_finished", [True, False])
def test_what_faces_keep_of_their_looks_is_said(tmp_path: Path, is_finished: bool) -> None:
    album = ProtectedAlbum(tmp_path)
    assert read_status(album.store).looks_jod is None
    album.begin("run-2", album.sets)
    for photo_set, jod in zip(album.sets, (9.3, 9.1), strict=True):
        album.commit("run-2", photo_set, face_visibility_jod=jod)
    if is_finished:
        Fold(album.store, "run-2")()
        finish_run(album.store, "run-2", {"exit_code": 0})
    status = read_status(album.store, "run-2")
    assert status.looks_jod == pytest.approx((9.2, 9.1))
    looks = "looks       9.20 of 10 JOD at twice a face's size, 9.10 the worst"
    assert looks in status_lines(status)


def test_a_stopped_run_says_what_to_do(tmp_path: Path) -> None:
    status = read_status(ProtectedAlbum(tmp_path, finish=False).store)
    assert status.state == "stopped"
    assert (status.num_planned, status.num_sets, status.counts) == (4, 1, {"protected": 2})
    assert status.seconds_left is None
    assert status.output_counts == {}
    assert any("run `dladiff protect` again" in line for line in status_lines(status))


def test_a_working_run_has_a_rate_a_rest_and_a_lock(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, finish=False)
    with OutputLock(album.store, "run-1"):
        time.sleep(0.05)
        status = read_status(album.store)
        assert status.state == "working"
        assert status.photos_per_s > 0
        assert status.seconds_left is not None
        assert status.seconds_left == pytest.approx(2 / status.photos_per_s)
        assert status.lock is not None
        assert status.lock.run_id == "run-1"
        assert "run run-1 on host" in "\n".join(status_lines(status))
    assert read_lock(album.store) is None


def test_a_lock_left_behind_shows_its_age(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    (album.output / "locks").mkdir(exist_ok=True)
    key = album.output / "locks" / "00000007.json"
    key.write_text(json.dumps({"run_id": "run-0", "host": "node-3", "ttl_s": 120.0}))
    os.utime(key, (time.time() - 500, time.time() - 500))
    lock = read_lock(album.store)
    assert lock is not None
    assert (lock.run_id, lock.host) == ("run-0", "node-3")
    assert lock.silent_s == pytest.approx(500, abs=5)
    assert not lock.is_alive


def test_a_dead_run_that_still_holds_the_lock_is_not_called_working(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, finish=False)
    (album.output / "locks").mkdir(exist_ok=True)
    key = album.output / "locks" / "00000007.json"
    key.write_text(json.dumps({"run_id": "run-1", "host": "node-3", "ttl_s": 120.0}))
    for age_s, state in ((60, "working"), (500, "stopped")):
        os.utime(key, (time.time() - age_s, time.time() - age_s))
        status = read_status(album.store)
        assert status.state == state
        text = "\n".join(status_lines(status))
        assert ("dead, or cut off from OUTPUT" in text) == (state == "stopped")
        assert ("run `dladiff protect` again" in text) == (state == "stopped")


def test_the_newest_run_is_shown_unless_another_is_named(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    album.begin("a-later-run", [])
    assert read_status(album.store).run_id == "a-later-run"
    assert read_status(album.store, "run-1").num_runs == 2
    with pytest.raises(
        ConfigurationError, match=r"no run 'run-9' in .*; newest: a-later-run, run-1"
    ):
        read_status(album.store, "run-9")


def test_deferred_photos_are_shown_by_cause(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    album.begin("run-2", [])
    rows = [photo_row(photo, "deferred", reason=Reason("disk_full")) for photo in album.photos[:3]]
    write_part(album.store, "run-2", rows)
    finish_run(album.store, "run-2", {"exit_code": 3, "photos_per_s": 0.5})
    status = read_status(album.store, "run-2")
    assert status.causes == {"disk_full": 3}
    assert (status.exit_code, status.photos_per_s) == (3, 0.5)
    assert status.output_counts == {"protected": 4}
    assert "deferred    3 by disk_full" in status_lines(status)


def test_an_output_without_runs_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="knows no runs"):
        read_status(open_store(str(tmp_path)))
