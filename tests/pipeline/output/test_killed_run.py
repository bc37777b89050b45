"""A run killed between any two changes and done again loses nothing and repeats nothing."""

import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import list_runs, unfinished_runs
from pipeline.storage.store import Store
from tests.pipeline.mini_run import Killed, MortalStore, protect, run

OLD = {"ann/1.jpg": b"one", "ann/2.jpg": b"two", "ann/3.jpg": b"three"}
NEW = {**OLD, "ann/2.jpg": b"another two", "bob/1.jpg": b"bob", "bob/2.jpg": b"bob too"}


def dying(uri: str, at: int) -> MortalStore:
    store = MortalStore(uri)
    store.dies_at = at
    return store


def later(uri: str) -> MortalStore:
    """The same OUTPUT long enough afterwards: a dead run's lock has run out."""
    store = MortalStore(uri)
    store.seconds_later = 1e6
    return store


def changes_of_a_run(uri: str) -> int:
    """Number of changes that a run from OLD to NEW makes; OUTPUT is then thrown away."""
    run(MortalStore(uri), "old", OLD, [])
    store = MortalStore(uri)
    run(store, "new", NEW, [])
    return store.num_changes


def check_nothing_lost_and_nothing_twice(uri: str, computed: list[str]) -> None:
    store = Store(uri)
    for name, content in NEW.items():
        assert store.read(f"images/{name}.png") == protect(content)
    rows = read_manifest(store).to_pylist()
    decided = Counter((row["source_uri"], row["source_version"]) for row in rows)
    assert set(decided.values()) == {1}
    assert len(decided) == len(OLD) + 3  # one changed, two new
    assert {row["status"] for row in rows} == {"protected"}
    for uri_, state in newest_state(store).items():
        assert state.output_key is not None
        assert store.sha256_of(state.output_key) == state.output_sha256
        assert state.output_key == f"images/{uri_.removeprefix('file:///in/')}.png"
    assert unfinished_runs(store) == []
    keys = [info.key for info in store.list()]
    assert not [key for key in keys if "/data/" in key]
    assert sorted(key for key in keys if key.startswith("images/")) == [
        f"images/{name}.png" for name in sorted(NEW)
    ]
    # At most the set in flight is computed again, and a run with nothing to do does nothing.
    assert len(computed) <= 3 + 2
    idle: list[str] = []
    run(later(uri), "idle", NEW, idle)
    assert idle == []
    assert read_manifest(store).num_rows == len(rows)


def kill_and_finish(uri: str, at: int, second_id: str) -> None:
    computed: list[str] = []
    run(MortalStore(uri), "old", OLD, [])
    with pytest.raises(Killed):
        run(dying(uri, at), "new", NEW, computed)
    run(later(uri), second_id, NEW, computed)
    check_nothing_lost_and_nothing_twice(uri, computed)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
@pytest.mark.parametrize("second_id", ["next", "new"])
def test_a_run_killed_at_any_change_is_finished_by_the_next(tmp_path: Path, second_id: str) -> None:
    total = changes_of_a_run(str(tmp_path / "counting"))
    assert total > 20
    for at in range(1, total + 1):
        kill_and_finish(str(tmp_path / str(at)), at, second_id=second_id)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_runs_that_are_killed_again_and_again_come_to_an_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dladiff")
    generator = random.Random(0)
    for number in range(8):
        uri, computed = str(tmp_path / str(number)), list[str]()
        run(MortalStore(uri), "old", OLD, [])
        for attempt in range(5):
            store = dying(uri, generator.randrange(1, 12))
            store.seconds_later = 1000.0 * (attempt + 1)
            with pytest.raises(Killed):
                run(store, f"try-{attempt}", NEW, computed)
        run(later(uri), "last", NEW, computed)
        check_nothing_lost_and_nothing_twice(uri, computed[-3:])
        assert len(list_runs(Store(uri))) >= 2
    assert "taking over the lock" in caplog.text
    assert not re.search("ann|bob|jpg|images/", caplog.text)


def test_a_run_killed_on_s3_is_finished_by_the_next(s3_prefix: str) -> None:
    total = changes_of_a_run(f"{s3_prefix}/counting")
    for at in range(2, total + 1, 5):
        kill_and_finish(f"{s3_prefix}/{at}", at, second_id="next")
