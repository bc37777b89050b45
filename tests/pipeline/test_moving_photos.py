"""Photos that go, come back, move or are copied: known by their content, never computed twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_rows, newest_state
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import jpeg_bytes, write_album


class Runs:
    """An INPUT with four photos of two people, protected once."""

    def __init__(self, folder: Path) -> None:
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

    def num_findings(self) -> int:
        return verify_output(self.output.uri, str(self.input)).num_findings


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
    assert runs.num_findings() == 0
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
    assert runs.num_findings() == 0


def test_photos_whose_output_was_deleted_meanwhile_are_computed_again(runs: Runs) -> None:
    before = runs.images()
    (runs.input / "bob").rename(runs.input.parent / "away")
    assert runs.protect(delete_gone_outputs=True) == ({}, 0)
    assert sorted(runs.images()) == ["ann/1.jpg", "ann/2.jpg"]
    (runs.input.parent / "away").rename(runs.input / "bob")
    assert runs.protect() == ({"protected": 2}, 2)
    assert runs.images() == before
