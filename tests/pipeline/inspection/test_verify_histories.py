"""``verify`` over what happens to photos: no false alarm, and none missed. Real runs, no models."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dladiff.results import Face, Photo, PhotoResult, SetResult
from pipeline.cli import app
from pipeline.config import CanarySettings
from pipeline.images.coding import Coding
from pipeline.inspection.explain import explain_photo
from pipeline.inspection.findings import VerifyReport
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import AFTER_EVERY_SET, CONFIG, Killed, MortalStore, OwnProcess
from tests.pipeline.mortal_run import run as mortal_run
from tests.sample_photos import encode, photo_image

pytestmark = pytest.mark.usefixtures("restored_logging")

NAMES = ("ann/1.png", "ann/2.png", "bob/1.png")


class GentlePool(OwnProcess):
    """Moves every pixel by ``levels``, in a face that fills the photo, as the budget allows."""

    levels = 3

    def _protect(self, photos: Sequence[Photo], *_: object) -> SetResult:
        return SetResult([self._result(photo) for photo in photos])

    def _result(self, photo: Photo) -> PhotoResult:
        height, width = photo.image.shape[:2]
        box, landmarks = (0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32)
        face = Face(box, landmarks, 0.9, mask_extent=(0, 0, width, height))
        change = np.where(photo.image < 128, self.levels, -self.levels)
        image = (photo.image + change).astype(np.uint8)
        return PhotoResult(
            photo.key, "protected", image=image, faces=[face], max_change_levels=self.levels
        )


class Story:
    """INPUT and OUTPUT, and the commands that a person runs on them."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output = folder / "in", folder / "out"
        for number, name in enumerate(NAMES):
            self.put(name, number)

    def put(self, name: str, seed: int, age_s: int = 0) -> None:
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo_image(32, 32, seed), "PNG"))
        os.utime(path, (1e9 - age_s, 1e9 - age_s))

    def protect(
        self,
        levels: int = 3,
        delete_gone_outputs: bool = False,
        options: RunOptions | None = None,
        num_canary_sets: int = 0,
        seed: int = 0,
        input_uri: str | None = None,
    ) -> RunOutcome:
        store = Store(str(self.output))
        pool = GentlePool(store)
        pool.levels = levels
        changes = {
            "delete_gone_outputs": delete_gone_outputs,
            "canary": CanarySettings(num_sets=num_canary_sets),
            "fold_every_s": AFTER_EVERY_SET,
        }
        operation = CONFIG.operation.model_copy(update=changes)
        method = CONFIG.method.changed(f"seed={seed}")
        config = CONFIG.model_copy(update={"operation": operation, "method": method})
        source = input_uri or str(self.input)
        return run_protection(source, store, config, options or RunOptions(), pool=pool)

    def verify(self, input_uri: str | None = None) -> VerifyReport:
        return verify_output(str(self.output), input_uri or str(self.input))

    def explain(self, name: str) -> str:
        return "\n".join(explain_photo(Store(str(self.output)), str(self.input / name)))


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


@pytest.fixture
def gone(story: Story) -> Story:
    """One photo was protected, deleted, and a run has seen that."""
    story.protect()
    (story.input / "ann/1.png").unlink()
    story.protect()
    return story


def test_of_a_photo_that_is_gone_the_served_file_is_still_checked(gone: Story) -> None:
    report = gone.verify()
    assert report.findings == []
    assert (report.num_files, report.num_compared) == (3, 2)
    assert report.notes == ["budgets not checked for 1 photos: the original is gone"]
    (gone.output / "images/ann/1.png").write_bytes(b"another")
    assert gone.verify().kinds == {"wrong_hash": 1}


def test_a_photo_that_went_and_came_back_is_accounted_for(gone: Story) -> None:
    gone.put("ann/1.png", 0)
    report = gone.verify()
    assert report.findings == []
    assert report.num_compared == 3  # against the budgets of the decision before it went
    note = "photos that were gone and are back as they were; the next run notes it"
    assert report.notes == [f"{note}: 1"]
    assert "It is there again" in gone.explain("ann/1.png")
    command = CliRunner().invoke(app, ["verify", str(gone.output), str(gone.input)])
    assert (command.exit_code, command.stdout.splitlines()[-1]) == (0, "found       nothing wrong")
    gone.protect()
    after = gone.verify()
    assert (after.findings, after.notes, after.num_compared) == ([], [], 3)


def test_budgets_of_a_photo_that_came_back_are_still_judged(gone: Story) -> None:
    gone.put("ann/1.png", 0)
    content = Coding("PNG").encode(255 - photo_image(32, 32, 0))
    (gone.output / "images/ann/1.png").write_bytes(content)
    assert gone.verify().kinds == {"wrong_hash": 1}


def test_a_photo_that_came_back_as_another_is_outdated(gone: Story) -> None:
    gone.put("ann/1.png", 77)
    report = gone.verify()
    assert report.kinds == {"outdated": 1}
    assert report.findings[0].detail == "changed since it was protected"


def test_a_photo_that_came_back_after_its_file_was_deleted_is_unprotected(story: Story) -> None:
    story.protect()
    (story.input / "ann/1.png").unlink()
    story.protect(delete_gone_outputs=True)
    assert story.verify().findings == []
    story.put("ann/1.png", 0)
    report = story.verify()
    assert report.kinds == {"not_accounted": 1}
    assert "removed meanwhile" in report.findings[0].detail
    assert "the protected file was removed" in story.explain("ann/1.png")


def test_new_times_are_no_change_and_old_times_hide_none(story: Story) -> None:
    story.protect()
    for number, name in enumerate(NAMES):
        story.put(name, number, age_s=1000)  # a restored backup
    assert story.verify().findings == []
    story.protect()
    assert story.verify().findings == []
    path = story.input / "ann/1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, (1e9 - 1000, 1e9 - 1000))
    assert story.verify().kinds == {"outdated": 1}  # same size, same time, other content


def test_photos_that_were_skipped_are_accounted_for_after_they_came_back(story: Story) -> None:
    path = story.input / "ann/broken.png"
    path.write_bytes(b"no photo")
    story.protect()
    assert newest_state(Store(str(story.output)))[f"file://{path}"].status == "skipped"
    path.unlink()
    story.protect()
    path.write_bytes(b"no photo")
    assert story.verify().findings == []


def test_photos_done_again_with_other_results_are_right(story: Story) -> None:
    story.protect()
    again = RunOptions(reprotect=("status=protected",))
    assert story.protect(levels=5, options=again).counts == {"protected": 3}
    report = story.verify()
    assert (report.findings, report.notes, report.num_compared) == ([], [], 3)


def test_a_catalog_that_names_files_that_are_not_there_is_no_alarm(
    story: Story, tmp_path: Path
) -> None:
    catalog = tmp_path / "people.csv"
    lines = ["identity,uri", *(f"x,in/{name}" for name in NAMES), "x,in/never.png"]
    catalog.write_text("\n".join(lines))
    story.protect(input_uri=str(catalog))
    (story.input / "ann/1.png").unlink()
    assert story.verify(str(catalog)).findings == []
    story.protect(input_uri=str(catalog))
    report = story.verify(str(catalog))
    assert report.findings == []
    assert "photos that a catalog file names and that are not there: 2" in report.notes


def test_a_copy_of_a_protected_file_under_another_name_is_unknown(story: Story) -> None:
    story.protect()
    images = story.output / "images"
    shutil.copy(images / "ann/1.png", images / "ann/copy.png")
    assert story.verify().kinds == {"unknown_file": 1}


def test_photos_that_wait_for_the_gate_are_said_to_wait(story: Story) -> None:
    story.protect()
    story.put("bob/2.png", 8)
    story.put("cat/1.png", 9)
    options = RunOptions(on_method_change="keep", max_worker_hours=0.0)  # ends after one set
    outcome = story.protect(options=options, num_canary_sets=50, seed=7)
    assert (outcome.num_held, outcome.num_later) == (1, 1)
    report = story.verify()
    assert report.kinds == {"not_accounted": 2}
    details = sorted(finding.detail for finding in report.findings)
    assert "held back until its settings are judged" in details[0]
    assert details[1] == "no decision in the manifest"


@pytest.mark.parametrize("touch", [lambda story: None, lambda story: story.put("ann/1.png", 5)])
def test_a_run_killed_at_any_change_raises_no_alarm_over_files(
    tmp_path: Path, touch: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    story = Story(tmp_path)
    mortal_run(Store(str(story.output)), "old", story.input)
    story.put("ann/2.png", 4)
    story.put("bob/2.png", 6)
    touch(story)
    story.output.rename(tmp_path / "before")
    for at in range(1, 100):
        shutil.copytree(tmp_path / "before", story.output)
        store = MortalStore(str(story.output))
        store.dies_at = at
        try:
            mortal_run(store, "new", story.input)
        except Killed:
            kinds = set(verify_output(str(story.output), str(story.input)).kinds)
            # The negatives of this method break every budget.
            assert kinds <= {"over_budget", "not_accounted", "outdated"}
        else:
            assert at > 10
            kinds = set(verify_output(str(story.output), str(story.input)).kinds)
            assert kinds == {"over_budget"}
            return
        finally:
            shutil.rmtree(story.output)
