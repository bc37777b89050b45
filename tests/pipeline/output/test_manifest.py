"""The manifest has every decision once, and the newest of a source is its state."""

import json
import random
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.manifest_row import (
    MANIFEST_SCHEMA,
    CosineColumn,
    FaceColumn,
    ManifestRow,
    RowStatus,
)
from pipeline.output import fold as manifest
from pipeline.output import manifest as reading
from pipeline.output.fold import Fold, write_part
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.lock import LockLostError
from pipeline.output.manifest import (
    decisions,
    manifest_tables,
    newest_rows,
    newest_state,
    read_manifest,
)
from pipeline.output.manifest_parts import create_part, drop_from_part, part_key, read_parts
from pipeline.records import CommitRecord, RunColumns, UnchangedPhoto, photo_row
from pipeline.storage.store import Store
from tests.pipeline.mini_run import done_record, photo_set, source_photo


def commit_sets(store: Store, run_id: str, names: list[str], content: bytes = b"x") -> None:
    """One committed set per name, of one photo."""
    ledger = Ledger(store, run_id, columns=RunColumns(method_digest="m", seed=3))
    for name in names:
        work = photo_set([source_photo(name, content)])
        attempt = ledger.begin(work)
        assert isinstance(attempt, Attempt)
        assert ledger.commit(done_record(store, ledger, work, attempt, {name: content}))


def row(name: str, status: RowStatus, **columns: Any) -> ManifestRow:
    return replace(photo_row(source_photo(name, b"x"), status), **columns)


def uris(store: Store) -> list[str]:
    return sorted(read_manifest(store, ["source_uri"])["source_uri"].to_pylist())


def test_a_fold_adds_what_is_new_and_only_that(store: Store) -> None:
    commit_sets(store, "r", ["ann/1.jpg", "ann/2.jpg"])
    assert Fold(store, "r")() == 2
    assert read_manifest(store)["status"].to_pylist() == ["protected"] * 2
    assert Fold(store, "r")() == 0
    commit_sets(store, "r", ["ann/3.jpg"])
    assert Fold(store, "r")() == 1
    table = read_manifest(store)
    assert table.schema.names == MANIFEST_SCHEMA.names
    assert uris(store) == [f"file:///in/ann/{number}.jpg" for number in (1, 2, 3)]
    assert table["output_uri"][0].as_py() == store.uri_of("images/ann/1.jpg.png")
    parts = [info.key for info in store.list("manifest/")]
    assert parts == [f"manifest/run=r/part-{number:06d}.parquet" for number in (0, 1)]


def test_a_fold_of_many_commits_makes_bounded_parts(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "COMMITS_PER_PART", 3)
    commit_sets(local_store, "r", [f"ann/{number}.jpg" for number in range(10)])
    assert Fold(local_store, "r")() == 10
    assert len([*local_store.list("manifest/")]) == 4
    assert len(uris(local_store)) == len(set(uris(local_store))) == 10


def test_drivers_that_fold_at_once_repeat_no_row(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "COMMITS_PER_PART", 2)
    names = [f"ann/{number}.jpg" for number in range(9)]
    commit_sets(local_store, "r", names)
    threads = [threading.Thread(target=Fold(local_store, "r")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uris(local_store) == [f"file:///in/{name}" for name in names]


def test_a_driver_without_the_lock_folds_nothing(local_store: Store) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg"])
    with pytest.raises(LockLostError):
        Fold(local_store, "r", lambda: False)()
    assert [*local_store.list("manifest/")] == []


class CountingStore(Store):
    """Counts what is read and hashed, by key."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.looks: Counter[str] = Counter()

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        self.looks[key] += 1
        return super().read(key, max_bytes)

    def sha256_of(self, key: str, read: bool = False) -> str:
        self.looks[key] += 1
        return super().sha256_of(key, read)


def test_what_was_just_published_is_not_looked_at_again(local_store: Store) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg", "ann/2.jpg"])
    told, untold = Ledger(local_store, "r").commits()
    store = CountingStore(local_store.uri)
    fold = Fold(store, "r")
    assert fold.take((told.set_key, told.generation)) is None
    assert list(fold.published(at_most=0)) == [told]
    store.looks.clear()
    assert fold() == 2
    image = told.rows[0].output_key
    assert not [key for key in store.looks if told.set_key in key or key == image]
    assert store.looks[str(untold.rows[0].staged_key)] > 0
    assert read_manifest(local_store)["status"].to_pylist() == ["protected"] * 2
    assert all(local_store.exists(f"images/ann/{number}.jpg.png") for number in (1, 2))


def test_a_fold_that_goes_on_sees_what_another_added_meanwhile(local_store: Store) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg"])
    fold = Fold(local_store, "r")
    assert fold() == 1
    commit_sets(local_store, "r", ["ann/2.jpg"])
    assert Fold(local_store, "r")() == 1
    commit_sets(local_store, "r", ["ann/3.jpg"])
    fold()
    assert uris(local_store) == [f"file:///in/ann/{number}.jpg" for number in (1, 2, 3)]


def test_a_photo_whose_data_was_lost_fails_alone(local_store: Store) -> None:
    ledger, inputs = Ledger(local_store, "r"), {"ann/1.jpg": b"one", "ann/2.jpg": b"two"}
    work = photo_set(source_photo(name, content) for name, content in inputs.items())
    attempt = ledger.begin(work)
    assert isinstance(attempt, Attempt)
    ledger.commit(done_record(local_store, ledger, work, attempt, inputs))
    local_store.delete([ledger.staged_key(work.key, attempt.id, "0.png")])
    Fold(local_store, "r")()
    lost, kept = read_manifest(local_store).sort_by("source_uri").to_pylist()
    assert (lost["status"], lost["reason"]) == ("failed", "staged_data_lost")
    assert lost["output_uri"] is lost["output_sha256"] is None
    assert kept["status"] == "protected"
    assert local_store.sha256_of("images/ann/2.jpg.png") == kept["output_sha256"]


def test_the_newest_decision_is_the_state(store: Store) -> None:
    commit_sets(store, "one", ["ann/1.jpg", "ann/2.jpg"])
    Fold(store, "one")()
    commit_sets(store, "two", ["ann/1.jpg"], b"changed")
    Fold(store, "two")()
    write_part(store, "aaa", [row("ann/2.jpg", "source_gone"), row("ann/3.jpg", "skipped")])
    states = newest_state(store)
    first = states["file:///in/ann/1.jpg"]
    assert (first.run_id, first.status) == ("two", "protected")
    assert first.version == source_photo("ann/1.jpg", b"changed").version
    assert first.output_key == "images/ann/1.jpg.png"
    assert (first.method_digest, first.identity) == ("m", "ann")
    assert states["file:///in/ann/2.jpg"].status == "source_gone"
    assert states["file:///in/ann/3.jpg"].status == "skipped"
    assert len(states) == 3
    assert read_manifest(store).num_rows == 5


def test_deferred_rows_decide_nothing(local_store: Store) -> None:
    commit_sets(local_store, "one", ["ann/1.jpg"])
    Fold(local_store, "one")()
    rows = [
        row("ann/1.jpg", "deferred", reason="store_throttled"),
        row("ann/2.jpg", "deferred", reason="store_throttled"),
    ]
    write_part(local_store, "two", rows)
    states = newest_state(local_store)
    assert {uri: state.status for uri, state in states.items()} == {
        "file:///in/ann/1.jpg": "protected"
    }
    assert read_manifest(local_store).num_rows == 3


def test_parts_of_rows_and_of_commits_share_one_numbering(local_store: Store) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg"])
    first = write_part(local_store, "r", [row("ann/8.jpg", "source_gone")])
    Fold(local_store, "r")()
    third = write_part(local_store, "r", [row("ann/9.jpg", "source_gone")])
    assert first == "manifest/run=r/part-000000.parquet"
    assert third == "manifest/run=r/part-000002.parquet"
    assert write_part(local_store, "r", []) is None
    assert len(uris(local_store)) == 3


def test_an_output_that_was_moved_still_knows_its_keys(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "before"))
    commit_sets(store, "r", ["ann/1.jpg"])
    Fold(store, "r")()
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = Store(str(tmp_path / "after"))
    (state,) = newest_state(moved).values()
    assert state.output_key == "images/ann/1.jpg.png"
    write_part(moved, "r", [row("ann/2.jpg", "skipped")])
    uris = read_manifest(moved)["output_uri"].to_pylist()
    assert uris == [moved.uri_of("images/ann/1.jpg.png"), None]


def test_an_empty_output_has_an_empty_manifest(local_store: Store) -> None:
    assert read_manifest(local_store).num_rows == 0
    assert read_manifest(local_store).schema.names == MANIFEST_SCHEMA.names
    assert newest_state(local_store) == {}


def test_a_part_that_lacks_a_newer_column_reads_as_null(local_store: Store) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg"])
    Fold(local_store, "r")()
    key = "manifest/run=r/part-000000.parquet"
    table = pq.read_table(pa.BufferReader(local_store.read(key))).drop_columns(["lpips"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    local_store.write(key, sink.getvalue().to_pybytes())
    assert read_manifest(local_store)["lpips"].to_pylist() == [None]


def test_a_part_of_a_newer_program_is_refused(local_store: Store) -> None:
    table = MANIFEST_SCHEMA.with_metadata({"dladiff_record_version": "99"}).empty_table()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    local_store.write("manifest/run=r/part-000000.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(PipelineError, match="has record version 99"):
        read_manifest(local_store)


def test_any_parquet_engine_reads_the_manifest(local_store: Store, tmp_path: Path) -> None:
    commit_sets(local_store, "r", ["ann/1.jpg"])
    Fold(local_store, "r")()
    found = pyarrow.dataset.dataset(tmp_path / "store" / "manifest", partitioning="hive")
    assert found.to_table(columns=["identity", "run"]).to_pylist() == [
        {"identity": "ann", "run": "r"}
    ]
    description = found.schema.field("psnr_db").metadata[b"description"]
    assert description == b"Re-read file against the original, dB."
    metadata = found.schema.metadata[b"dladiff_commits"]
    assert len(json.loads(metadata)) == 1


def test_nested_columns_survive(local_store: Store) -> None:
    cosine = CosineColumn("sface", held_out=True, before=1.0, after=0.0, after_handling=None)
    face = FaceColumn([1.0, 2.0, 3.0, 4.0], [0.5] * 10, score=0.5, mask_extent=[1, 2, 3, 4])
    given = row("ann/1.jpg", "failed", faces=[face], identity_cosines=[cosine], num_faces=1)
    write_part(local_store, "r", [given])
    (found,) = read_manifest(local_store).to_pylist()
    assert found["identity_cosines"] == [asdict(cosine)]
    assert found["faces"] == [asdict(face)]
    (again,) = newest_rows(local_store)
    assert again == replace(given, run_id="r", committed_at=again.committed_at)
    (few,) = newest_rows(local_store, ["num_faces"])
    assert (few.num_faces, few.identity, few.faces) == (1, "ann", None)


@pytest.mark.parametrize("leaving_out", [("deferred",), ("deferred", "source_gone")])
def test_the_newest_rows_are_found_whatever_order_parts_and_times_have(
    local_store: Store, leaving_out: tuple[str, ...]
) -> None:
    draw = random.Random(0)
    statuses: list[RowStatus] = ["protected", "failed", "deferred", "source_gone"]
    written = list[ManifestRow]()
    for number in range(12):
        rows = [
            row(
                f"ann/{draw.randrange(15)}.jpg",
                draw.choice(statuses),
                psnr_db=float(len(written) + place),
                committed_at=f"2026-01-0{draw.randrange(1, 4)}T00:00:00.000001+00:00",
            )
            for place in range(number)
        ]
        assert create_part(local_store, f"run-{number:02d}", 0, rows, ())
        written += rows
    expected = dict[str, ManifestRow]()
    for one in sorted(
        written, key=lambda row: row.committed_at or ""
    ):  # stable: the last of equals
        if one.status not in leaving_out:
            expected[one.source_uri] = one
    found = [*newest_rows(local_store, ["psnr_db"], leaving_out)]
    assert sorted(one.psnr_db or 0 for one in found) == sorted(
        one.psnr_db or 0 for one in expected.values()
    )
    assert len(expected) > 10


def test_a_part_that_is_rewritten_while_rows_are_read_is_no_silent_loss(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(local_store, "one", [row("ann/1.jpg", "protected"), row("bob/1.jpg", "protected")])
    num_reads = 0

    def read_and_forget(*arguments: Any) -> Any:
        nonlocal num_reads
        num_reads += 1
        if num_reads == 2:
            drop_from_part(local_store, part_key("one", 0), {"bob"}, ())
        return read_parts(*arguments)

    monkeypatch.setattr(reading, "read_parts", read_and_forget)
    with pytest.raises(PipelineError, match="run the command again"):
        [*newest_rows(local_store)]


def test_parts_are_read_side_by_side_and_come_in_their_order(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write_part(local_store, f"run-{number:02d}", [row(f"ann/{number}.jpg", "protected")])
    read, lock, at_once = Store.read, threading.Lock(), [0, 0]

    def slow(store: Store, key: str) -> bytes:
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        time.sleep(0.05)
        with lock:
            at_once[0] -= 1
        return read(store, key)

    monkeypatch.setattr(Store, "read", slow)
    found = [table["identity"].to_pylist() for table in manifest_tables(local_store, ["identity"])]
    assert len(found) == 20
    assert 4 <= at_once[1] <= 8
    rows = [uri for uri, _ in decisions(local_store)]
    assert rows == [f"file:///in/ann/{number}.jpg" for number in range(20)]


def commit_unchanged(store: Store, run_id: str, name: str, sha256: str) -> None:
    """A commit that found the content of another version to be the one decided on."""
    work = photo_set([source_photo(name, b"touched")])
    ledger = Ledger(store, run_id)
    attempt = ledger.begin(work)
    assert isinstance(attempt, Attempt)
    photo = UnchangedPhoto(work.photos[0].uri, "version 2", sha256)
    record = CommitRecord(work.key, 0, "ann", "", attempt.id, "done", [], unchanged=[photo])
    assert ledger.commit(record)


def test_unchanged_content_repeats_the_earlier_row_under_its_new_version(store: Store) -> None:
    earlier = row("ann/1.jpg", "protected", source_sha256="s", psnr_db=38.0, output_sha256="o")
    write_part(store, "one", [earlier])
    write_part(store, "two", [row("ann/1.jpg", "deferred")])
    commit_unchanged(store, "three", "ann/1.jpg", "s")
    Fold(store, "three")()
    (newest,) = newest_rows(store)
    assert newest == replace(
        earlier,
        source_version="version 2",
        set_key=newest.set_key,
        run_id="three",
        attempt=newest.attempt,
        committed_at=newest.committed_at,
        seconds=0.0,
        gpu_seconds=0.0,
    )
    assert Fold(store, "three")() == 0


def test_unchanged_content_whose_earlier_row_was_lost_is_failed(local_store: Store) -> None:
    write_part(local_store, "one", [row("ann/1.jpg", "protected", source_sha256="another")])
    commit_unchanged(local_store, "two", "ann/1.jpg", "s")
    Fold(local_store, "two")()
    (newest,) = newest_rows(local_store)
    assert (newest.status, newest.reason) == ("failed", "earlier_row_lost")
