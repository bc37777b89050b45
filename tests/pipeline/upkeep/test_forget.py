"""``forget`` leaves nothing of a person in OUTPUT, everything of the others, and holds later on."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigurationError, LockHeldError
from pipeline.inspection.explain import explain_photo
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOutcome
from pipeline.output.canary import accept
from pipeline.output.fold import Fold
from pipeline.output.lock import OutputLock
from pipeline.output.manifest import newest_state
from pipeline.output.runs import finish_run, unfinished_runs
from pipeline.reporting.displays import plan_line
from pipeline.reporting.tally import Tally
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.upkeep.forget import forget_identities, forget_lines, readmit_identities
from tests.pipeline.mortal_run import CONFIG, Killed, MortalStore, OwnProcess, run
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import encode, photo_image

ANN = "Änn Smith-7731"
PHOTOS = (f"{ANN}/beach-5b1c.png", f"{ANN}/trip/boat-9e2d.png", f"{ANN}/cat-40aa.png")
OTHERS = ("bob/1.png", "bob/2.png", "Änn Smith/1.png")
TRACES = (
    ANN.encode(), b"%C3%84nn%20Smith-7731", json.dumps(ANN).strip('"').encode(), b"Smith-7731",
    b"beach-5b1c", b"boat-9e2d", b"cat-40aa",
)  # fmt: skip
"""Her name as text, in a key and in JSON; what is hers alone in URIs; the names of her files."""


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for number, name in enumerate((*PHOTOS, *OTHERS)):
        add_photo(tmp_path / "in", name, number)
    return tmp_path / "in"


def add_photo(folder: Path, name: str, seed: int) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode(photo_image(32, 32, seed), "PNG"))


def texts_of(store: Store) -> Iterator[tuple[str, bytes]]:
    """Every object's key, bytes and, of Parquet, all that its compressed pages and schema hold."""
    for info in store.list():
        data = store.read(info.key)
        yield info.key, info.key.encode() + b"\n" + data
        if info.key.endswith(".parquet"):
            table = pq.ParquetFile(pa.BufferReader(data)).read()
            text = json.dumps(table.to_pylist(), ensure_ascii=False) + str(table.schema.metadata)
            yield info.key, text.encode()


def traces(store: Store) -> set[str]:
    """Top folders of OUTPUT with anything of her."""
    return {
        key.split("/")[0] for key, text in texts_of(store) if any(trace in text for trace in TRACES)
    }


def images(store: Store) -> dict[str, str]:
    return {info.key: store.sha256_of(info.key) for info in store.list("images/")}


def protect_twice(uri: str, album: Path) -> None:
    """Two runs, so that she has rows in two parts, one of them superseded."""
    run(Store(uri), "first", album)
    add_photo(album, PHOTOS[0], 77)
    run(Store(uri), "second", album)


def check_she_is_gone(store: Store, others: dict[str, str]) -> None:
    assert traces(store) == set()
    assert images(store) == others
    states = newest_state(store).values()
    assert len(states) == 3
    assert ANN not in {state.identity for state in states}


def check_later_runs_leave_her_alone(store: Store, album: Path, others: dict[str, str]) -> None:
    computed: list[int] = []
    later = MortalStore(store.uri)
    later.seconds_later = 1e6
    run(later, "afterwards", album, computed)
    assert computed == [0]
    assert traces(store) == set()
    assert images(store) == others


def others_of(store: Store) -> dict[str, str]:
    return {key: sha for key, sha in images(store).items() if "Smith-7731" not in key}


def test_no_byte_of_output_names_her_afterwards(store: Store, album: Path) -> None:
    protect_twice(store.uri, album)
    assert traces(store) == {"images", "manifest", "runs"}  # the search does find her
    others = others_of(store)
    assert len(others) == 3
    report = forget_identities(store, [ANN])
    assert (report.num_photos, report.num_images, report.num_unknown) == (3, 3, 0)
    assert report.num_records >= 6
    assert report.num_rows == 4 + 3  # in the manifest, in plans
    check_she_is_gone(store, others)
    check_later_runs_leave_her_alone(store, album, others)
    if store.uri.startswith("file://"):
        root = Path(store.uri.removeprefix("file://"))
        assert [path for path in root.rglob("*") if "Smith-7731" in path.name] == []


def test_her_photos_are_counted_explained_and_never_taken_again(
    local_store: Store, album: Path
) -> None:
    protect_twice(local_store.uri, album)
    forget_identities(local_store, [ANN])
    add_photo(album, f"{ANN}/new.png", 50)
    add_photo(album, "bob/new.png", 51)
    tally = Tally()
    outcome = protect(local_store, album, tally)
    assert outcome.counts == {"protected": 1}
    assert tally.plan is not None
    assert tally.plan.num_forgotten == 4
    assert "4 of forgotten people" in plan_line(tally.plan)
    (text,) = explain_photo(local_store, f"{album}/{PHOTOS[0]}")
    assert "was told to forget the person of" in text
    assert "Smith-7731" not in str([info.key for info in local_store.list()])


def protect(store: Store, album: Path, tally: Tally | None = None) -> RunOutcome:
    return run_protection(str(album), store, CONFIG, tally=tally, pool=OwnProcess(store))


def test_after_undo_she_is_protected_anew(local_store: Store, album: Path) -> None:
    run(local_store, "nightly", album)
    before = images(local_store)
    forget_identities(local_store, [ANN])
    assert readmit_identities(local_store, [ANN, "nobody"]) == 1
    run(local_store, "nightly", album)  # under the same run id: her sets are decided once more
    assert images(local_store) == before


def test_forgetting_killed_anywhere_is_finished_by_the_same_command(
    tmp_path: Path, album: Path
) -> None:
    base = tmp_path / "base"
    protect_twice(str(base), album)
    others = others_of(Store(str(base)))
    shutil.copytree(base, tmp_path / "counting")
    counting = MortalStore(str(tmp_path / "counting"))
    forget_identities(counting, [ANN])
    assert counting.num_changes > 15
    for at in range(1, counting.num_changes + 1, 2):
        uri = str(tmp_path / "out")
        shutil.copytree(base, uri)
        dying, again = MortalStore(uri), MortalStore(uri)
        dying.dies_at, again.seconds_later = at, 2e6
        with pytest.raises(Killed):
            forget_identities(dying, [ANN])
        if at % 5 == 0:  # a run comes first: it must not bring her back
            between = MortalStore(uri)
            between.seconds_later = 1e6
            run(between, "between", album)
        forget_identities(again, [ANN])
        check_she_is_gone(Store(uri), others)
        shutil.rmtree(uri)


def test_what_a_crashed_run_decided_on_her_is_not_published(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, finish=False)  # it committed ann's set
    assert images(album.store) == {}
    album.commit("run-1", album.sets[1])
    accept(album.store, "d" * 64)  # its gate is open
    forget_identities(album.store, ["ann"])
    assert sorted(images(album.store)) == ["images/ben/1.jpg.png", "images/ben/2.jpg.png"]
    assert {state.identity for state in newest_state(album.store).values()} == {"ben"}
    assert unfinished_runs(album.store) == []
    assert not [key for key, text in texts_of(album.store) if b"/ann/" in text or b'"ann"' in text]


def test_a_worker_that_outlived_everything_cannot_bring_her_back(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    forget_identities(album.store, ["ann"])
    album.begin("run-2", [])
    album.commit("run-2", album.sets[0])
    Fold(album.store, "run-2")()  # what the next run does first
    assert {state.identity for state in newest_state(album.store).values()} == {"ben"}
    assert not [key for key, text in texts_of(album.store) if b"/ann/" in text]
    # Its run was declared finished before: nobody folds, and the same command cleans up.
    finish_run(album.store, "run-2", {})
    album.commit("run-2", album.sets[0])
    forget_identities(album.store, ["ann"])
    assert not [key for key, text in texts_of(album.store) if b"/ann/" in text]


def test_others_are_accounted_for_and_she_is_no_gap(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    forget_identities(album.store, ["ann"])
    report = verify_output(str(album.output), str(album.input))
    assert report.num_findings == 0
    assert "photos of people whom OUTPUT was told to forget: 2" in report.notes


def test_a_key_in_her_folder_that_a_catalog_gave_another_person_stays(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    guest = dataclasses.replace(album.photos[2], output_key="images/ann/guest.png", version="2")
    album.run("run-2", [album.photo_set([guest])])
    forget_identities(album.store, ["ann"])
    assert "images/ann/guest.png" in images(album.store)


def test_an_album_without_folders_is_named_nowhere_either(
    local_store: Store, tmp_path: Path
) -> None:
    add_photo(tmp_path / ANN, "beach-5b1c.png", 1)
    run(local_store, "r", tmp_path / ANN)
    assert "runs" in traces(local_store)
    forget_identities(local_store, [ANN])
    assert traces(local_store) == set()


def test_a_misspelt_name_is_said_and_a_run_at_work_is_respected(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    before = images(album.store)
    report = forget_identities(album.store, ["Ann"])
    assert images(album.store) == before
    assert "OUTPUT held nothing of 1 name: check the spelling" in forget_lines(report)[-1]
    with OutputLock(album.store, "run-2"), pytest.raises(LockHeldError, match="run-2"):
        forget_identities(album.store, ["ann"])
    assert images(album.store) == before
    with pytest.raises(ConfigurationError, match="there is no OUTPUT"):
        forget_identities(Store(str(tmp_path / "nowhere")), ["ann"])


@pytest.mark.usefixtures("restored_logging")
def test_the_command_takes_names_and_lists_of_names(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("\ufeffann\n\n ben \n", encoding="utf-8")
    runner = CliRunner()
    none = runner.invoke(app, ["forget", str(album.output)], prog_name="dladiff")
    assert (none.exit_code, "use --identity NAME" in none.stderr) == (1, True)
    done = runner.invoke(app, ["forget", str(album.output), "--list", str(names)])
    assert "forgotten   2 people: 4 photos" in done.stdout
    assert images(album.store) == {}
    undone = runner.invoke(app, ["forget", str(album.output), "--identity", "ann", "--undo"])
    assert undone.stdout == "1 of 1 were forgotten\n"


def test_a_bucket_with_versions_keeps_earlier_ones_and_shows_none(
    s3_endpoint: str, s3_client: Any, album: Path
) -> None:
    s3_client.create_bucket(Bucket="versioned")
    s3_client.put_bucket_versioning(
        Bucket="versioned", VersioningConfiguration={"Status": "Enabled"}
    )
    store = Store("s3://versioned/out")
    protect_twice(store.uri, album)
    others = others_of(store)
    forget_identities(store, [ANN])
    check_she_is_gone(store, others)
    found = s3_client.list_object_versions(Bucket="versioned", Prefix="out/images/")
    assert [each for each in found["Versions"] if "Smith-7731" in each["Key"]]  # docs/operations.md
