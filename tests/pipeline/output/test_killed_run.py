"""A run killed between any two changes and done again loses nothing and repeats nothing."""

import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline.images.coding import decode_coded
from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import list_runs, unfinished_runs
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import (
    AFTER_EVERY_SET,
    AT_THE_END,
    Killed,
    MortalStore,
    protected_pixels,
    run,
)
from tests.sample_photos import encode, photo_image

OLD = {"ann/1.png": 1, "ann/2.png": 2, "ann/3.png": 3}
NEW = {**OLD, "ann/2.png": 4, "bob/1.png": 5, "bob/2.png": 6}
"""Photos by name, as the number that makes their pixels."""
TOUCHED = "ann/3.png"
"""Has a new time stamp in NEW and the same content."""


class Album:
    """INPUT, before and after a person changed, touched and added photos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def become(self, photos: dict[str, int], touched: str = "") -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, seed in photos.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(photo_image(32, 32, seed), "PNG"))
            os.utime(path, (1e9, 1e9 + (name == touched)))


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path / "in")


def dying(uri: str, at: int) -> MortalStore:
    store = MortalStore(uri)
    store.dies_at = at
    return store


def later(uri: str) -> MortalStore:
    """The same OUTPUT long enough afterwards: a dead run's lock has run out."""
    store = MortalStore(uri)
    store.seconds_later = 1e6
    return store


def run_old(uri: str, album: Album) -> None:
    album.become(OLD)
    run(Store(uri), "old", album.folder)
    album.become(NEW, TOUCHED)


def changes_of_a_run(uri: str, album: Album, fold_every_s: float) -> int:
    """Number of changes that a run from OLD to NEW makes."""
    run_old(uri, album)
    store = MortalStore(uri)
    run(store, "new", album.folder, fold_every_s=fold_every_s)
    return store.num_changes


def check_nothing_lost_and_nothing_twice(uri: str, album: Album, computed: list[int]) -> None:
    store = Store(uri)
    for name, seed in NEW.items():
        published = decode_coded(store.read(f"images/{name}"))
        assert (published == protected_pixels(photo_image(32, 32, seed))).all()
    rows = read_manifest(store).to_pylist()
    decided = Counter((row["source_uri"], row["source_version"]) for row in rows)
    assert set(decided.values()) == {1}
    assert len(decided) == len(OLD) + 4  # one changed, one touched, two new
    assert {row["status"] for row in rows} == {"protected"}
    for uri_, state in newest_state(store).items():
        assert state.output_key is not None
        assert store.sha256_of(state.output_key) == state.output_sha256
        name = uri_.removeprefix(f"file://{album.folder}/")
        assert state.output_key == f"images/{name}"
    assert unfinished_runs(store) == []
    keys = [info.key for info in store.list()]
    assert not [key for key in keys if "/data/" in key]
    assert sorted(key for key in keys if key.startswith("images/")) == [
        f"images/{name}" for name in sorted(NEW)
    ]
    # At most the set in flight is computed again, and a run with nothing to do does nothing.
    assert sum(computed) <= 3 + 2
    idle: list[int] = []
    run(later(uri), "idle", album.folder, idle)
    assert idle == [0]
    assert read_manifest(store).num_rows == len(rows)


def kill_and_finish(uri: str, album: Album, at: int, second_id: str, fold_every_s: float) -> None:
    computed: list[int] = []
    with pytest.raises(Killed):
        run(dying(uri, at), "new", album.folder, computed, fold_every_s)
    run(later(uri), second_id, album.folder, computed)
    check_nothing_lost_and_nothing_twice(uri, album, computed)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
@pytest.mark.parametrize("fold_every_s", [AFTER_EVERY_SET, AT_THE_END])
@pytest.mark.parametrize("second_id", ["next", "new"])
def test_a_run_killed_at_any_change_is_finished_by_the_next(
    tmp_path: Path, album: Album, second_id: str, fold_every_s: float
) -> None:
    total = changes_of_a_run(str(tmp_path / "counting"), album, fold_every_s)
    assert total > 20
    output, before = tmp_path / "out", tmp_path / "before"
    run_old(str(output), album)
    output.rename(before)
    for at in range(1, total + 1):
        shutil.copytree(before, output)
        kill_and_finish(str(output), album, at, second_id, fold_every_s)
        shutil.rmtree(output)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_runs_that_are_killed_again_and_again_come_to_an_end(
    tmp_path: Path, album: Album, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dladiff")
    generator = random.Random(0)
    for number in range(8):
        uri, computed = str(tmp_path / str(number)), list[int]()
        run_old(uri, album)
        for attempt in range(5):
            store = dying(uri, generator.randrange(1, 12))
            store.seconds_later = 1000.0 * (attempt + 1)
            with pytest.raises(Killed):
                run(store, f"try-{attempt}", album.folder, computed)
        run(later(uri), "last", album.folder, computed)
        check_nothing_lost_and_nothing_twice(uri, album, computed[-1:])
        assert len(list_runs(Store(uri))) >= 2
    assert "taking over the lock" in caplog.text
    assert not re.search("ann|bob|png|images/", caplog.text)


def test_a_run_killed_on_s3_is_finished_by_the_next(s3_prefix: str, album: Album) -> None:
    total = changes_of_a_run(f"{s3_prefix}/counting", album, AFTER_EVERY_SET)
    for at in range(2, total + 1, 5):
        run_old(f"{s3_prefix}/{at}", album)
        kill_and_finish(f"{s3_prefix}/{at}", album, at, "next", AFTER_EVERY_SET)
