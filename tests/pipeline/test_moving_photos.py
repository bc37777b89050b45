"""Photos that go, come back, move or are copied: known by their content, never computed twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_rows, newest_state
from pipeline.output.repeated_rows import COPIED_NOTE
from pipeline.reporting.displays import summary_lines
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import jpeg_bytes, write_album


class Runs:
    """An INPUT with four photos of two people, protected once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("ann/1", "ann/2", "bob/1", "bob/2")
        photos = {f"{name}.jpg": jpeg_bytes(seed=n) for n, name in enumerate(names)}
        self.input = write_album(folder / "in", photos)
        self.output = Store(str(folder / "out"))
        assert self.protect() == ({"protected": 4}, 4)

    def protect(self, **operation: Any) -> tuple[dict[str, int], int]:
        """Photos by status of a new run, and how many the method computed."""
        self.pool = OwnProcess(self.output)
        self.outcome = self.run(operation)
        return dict(self.outcome.counts), self.pool.num_computed

    def run(self, operation: dict[str, Any]) -> RunOutcome:
        settings = CONFIG.operation.model_copy(update=operation)
        config = CONFIG.model_copy(update={"operation": settings})
        return run_protection(str(self.input), self.output, config, RunOptions(), pool=self.pool)

    def statuses(self) -> dict[str, str]:
        root = f"file://{self.input}/"
        states = newest_state(self.output).items()
        return {uri.removeprefix(root): state.status for uri, state in states}

    def images(self) -> dict[str, bytes]:
        keys = (info.key for info in self.output.list("images/"))
        return {key.removeprefix("images/"): self.output.read(key) for key in keys}

    def findings(self) -> set[str]:
        """Kinds that ``verify`` finds, but for budgets: the stand-in's negatives respect none."""
        return {*verify_output(self.output.uri, str(self.input)).kinds} - {"over_budget"}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_photos_that_return_as_they_were_hold_on_without_computing(runs: Runs) -> None:
    before, rows = runs.images(), [*newest_rows(runs.output)]
    (runs.input / "bob").rename(runs.input.parent / "away")
    assert runs.protect() == ({}, 0)
    assert runs.statuses()["bob/1.jpg"] == "source_gone"
    (runs.input.parent / "away").rename(runs.input / "bob")
    assert runs.protect() == ({}, 0)
    assert set(runs.statuses().values()) == {"protected"}
    assert runs.images() == before
    after = {row.source_uri: row for row in newest_rows(runs.output)}
    assert {row.psnr_db for row in rows} == {row.psnr_db for row in after.values()}
    assert runs.findings() == set()
    assert runs.protect() == ({}, 0)


def test_photos_that_return_with_a_new_time_are_read_and_not_computed(runs: Runs) -> None:
    before = runs.images()
    kept = runs.input.parent / "backup"
    shutil.copytree(runs.input / "bob", kept, copy_function=shutil.copyfile)
    shutil.rmtree(runs.input / "bob")
    assert runs.protect() == ({}, 0)
    shutil.copytree(kept, runs.input / "bob", copy_function=shutil.copyfile)
    assert runs.protect() == ({"unchanged": 2}, 0)
    assert set(runs.statuses().values()) == {"protected"}
    assert runs.images() == before
    assert runs.findings() == set()


def test_photos_whose_output_was_deleted_meanwhile_are_computed_again(runs: Runs) -> None:
    before = runs.images()
    (runs.input / "bob").rename(runs.input.parent / "away")
    assert runs.protect(delete_gone_outputs=True) == ({}, 0)
    assert sorted(runs.images()) == ["ann/1.jpg", "ann/2.jpg"]
    (runs.input.parent / "away").rename(runs.input / "bob")
    assert runs.protect() == ({"protected": 2}, 2)
    assert runs.images() == before


def test_renamed_photos_are_copied_and_the_old_files_stay(runs: Runs) -> None:
    before = runs.images()
    (runs.input / "ann/1.jpg").rename(runs.input / "ann/holiday.jpg")
    (runs.input / "bob").rename(runs.input / "robert")
    assert runs.protect() == ({"copied": 3}, 0)
    assert (runs.outcome.exit_code, runs.outcome.num_gone) == (0, 3)
    after = runs.images()
    assert {name: after[name] for name in before} == before
    assert after["ann/holiday.jpg"] == before["ann/1.jpg"]
    assert after["robert/2.jpg"] == before["bob/2.jpg"]
    assert runs.statuses() == {
        "ann/1.jpg": "source_gone",
        "ann/2.jpg": "protected",
        "ann/holiday.jpg": "protected",
        "bob/1.jpg": "source_gone",
        "bob/2.jpg": "source_gone",
        "robert/1.jpg": "protected",
        "robert/2.jpg": "protected",
    }
    (row,) = (row for row in newest_rows(runs.output) if row.source_uri.endswith("robert/2.jpg"))
    assert (row.identity, row.source_notes) == ("robert", [COPIED_NOTE])
    assert row.output_uri == runs.output.uri_of("images/robert/2.jpg")
    assert row.run_id == runs.outcome.run_id
    assert runs.findings() == set()
    text = "\n".join(summary_lines(runs.outcome))
    assert "copied 3 photos: of the same content as one that OUTPUT holds" in text
    assert "3 photos gone from INPUT: protected files under the old keys stay" in text
    assert runs.protect() == ({}, 0)


def test_a_renamed_photo_whose_old_file_is_to_be_deleted_is_copied_first(runs: Runs) -> None:
    before = runs.images()
    (runs.input / "bob").rename(runs.input / "robert")
    assert runs.protect(delete_gone_outputs=True) == ({"copied": 2}, 0)
    assert sorted(runs.images()) == ["ann/1.jpg", "ann/2.jpg", "robert/1.jpg", "robert/2.jpg"]
    assert runs.images()["robert/1.jpg"] == before["bob/1.jpg"]
    assert runs.findings() == set()


def test_a_second_copy_beside_new_photos_is_copied_and_only_the_new_ones_computed(
    runs: Runs,
) -> None:
    shutil.copyfile(runs.input / "ann/1.jpg", runs.input / "bob/copy.jpg")
    write_album(runs.input, {"bob/3.jpg": jpeg_bytes(seed=9), "cat/1.jpg": jpeg_bytes(seed=10)})
    shutil.copyfile(runs.input / "ann/2.jpg", runs.input / "cat/2.jpg")
    assert runs.protect() == ({"copied": 2, "protected": 2}, 2)
    images = runs.images()
    assert images["bob/copy.jpg"] == images["ann/1.jpg"]
    assert images["cat/2.jpg"] == images["ann/2.jpg"]
    assert runs.findings() == set()
    assert set(runs.statuses().values()) == {"protected"}


def test_a_renamed_input_keeps_its_keys(runs: Runs) -> None:
    """Another mount point: the same files at the same place below another folder."""
    before = runs.images()
    old, runs.input = runs.input, runs.input.rename(runs.folder / "mounted elsewhere")
    assert runs.protect() == ({"copied": 4}, 0)
    assert runs.outcome.num_handed_on == 4
    assert runs.images() == before
    rows = {row.source_uri: row for row in newest_rows(runs.output)}
    assert {row.status for uri, row in rows.items() if uri.startswith(f"file://{old}/")} == {
        "source_gone"
    }
    assert runs.findings() == set()
    assert runs.protect() == ({}, 0)
    # Back at the old place everything is known as well.
    runs.input = runs.input.rename(old)
    assert runs.protect() == ({"copied": 4}, 0)
    assert runs.images() == before


def test_a_copied_input_beside_the_old_one_gets_keys_of_its_own(runs: Runs) -> None:
    before = runs.images()
    old, runs.input = runs.input, runs.folder / "second"
    shutil.copytree(old, runs.input)
    assert runs.protect() == ({"copied": 4}, 0)
    assert (runs.outcome.num_handed_on, len(runs.images())) == (0, 8)
    assert before.items() <= runs.images().items()
    runs.input = old
    assert runs.protect() == ({}, 0)
    assert runs.findings() == set()


def test_all_photos_renamed_at_once_are_no_missing_volume(runs: Runs) -> None:
    for folder in ("ann", "bob"):
        (runs.input / folder).rename(runs.input / f"{folder} 2")
    assert runs.protect() == ({"copied": 4}, 0)


def test_where_the_known_file_is_lost_the_photo_is_computed(runs: Runs) -> None:
    runs.output.delete(["images/ann/1.jpg"])
    (runs.input / "ann/1.jpg").rename(runs.input / "ann/3.jpg")
    assert runs.protect() == ({"protected": 1}, 1)
    assert "ann/3.jpg" in runs.images()


def test_photos_that_change_places_are_done_right(runs: Runs) -> None:
    first, second = runs.input / "ann/1.jpg", runs.input / "ann/2.jpg"
    before = runs.images()
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    runs.protect()
    assert runs.images()["ann/1.jpg"] == before["ann/2.jpg"]
    assert runs.images()["ann/2.jpg"] == before["ann/1.jpg"]
    assert runs.findings() == set()


def test_another_photo_of_the_same_size_is_computed(runs: Runs) -> None:
    content = (runs.input / "ann/1.jpg").read_bytes()
    other = jpeg_bytes(seed=50)
    assert len(other) < len(content) + 200
    padded = max(len(content), len(other))
    write_album(runs.input, {"cat/1.jpg": content + bytes(padded - len(content))})
    write_album(runs.input, {"cat/2.jpg": other + bytes(padded - len(other))})
    statuses, num_computed = runs.protect()
    assert num_computed == statuses["protected"]


def test_a_bucket_knows_a_renamed_photo_too(store: Store, tmp_path: Path) -> None:
    photo, output = jpeg_bytes(), Store(str(tmp_path / "out"))

    def protect() -> tuple[dict[str, int], int]:
        pool = OwnProcess(output)
        outcome = run_protection(store.uri, output, CONFIG, RunOptions(), pool=pool)
        return dict(outcome.counts), pool.num_computed

    store.write("ann/1.jpg", photo)
    assert protect() == ({"protected": 1}, 1)
    store.write("bob/0a1b2c", photo)
    store.write("bob/2.jpg", photo)
    store.delete(["ann/1.jpg"])
    counts, num_computed = protect()
    assert counts["copied"] == 1
    assert output.read("images/bob/2.jpg") == output.read("images/ann/1.jpg")
    assert num_computed <= 1  # a key without an ending may mean another format
