"""INPUT changes between plan and reading: what lies there is protected, nothing is lost."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.images.coding import decode_coded
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state
from pipeline.pool import PoolSize
from pipeline.records import PhotoSet
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.worker.settings import SetOutcome, WorkerSettings
from tests.pipeline.mortal_run import CONFIG, OwnProcess, protected_pixels
from tests.sample_photos import encode, photo_image

PLANNED, NEWER = photo_image(32, 32, seed=1), photo_image(40, 32, seed=2)


class LatePool(OwnProcess):
    """Something happens to INPUT after the plan and before the first photo is read."""

    meanwhile: Callable[[], None]

    def protect_sets(
        self, photo_sets: Sequence[PhotoSet], settings: WorkerSettings, size: PoolSize
    ) -> Iterator[SetOutcome]:
        self.meanwhile()
        yield from super().protect_sets(photo_sets, settings, size)


@pytest.fixture
def photos(store: Store) -> Store:
    """INPUT with two photos of one person: once a folder, once a bucket."""
    store.write("ann/1.png", encode(PLANNED, "PNG"))
    store.write("ann/2.png", encode(photo_image(32, 32, seed=3), "PNG"))
    return store


def protect(photos: Store, output: Store, meanwhile: Callable[[], None]) -> RunOutcome:
    pool = LatePool(output)
    pool.meanwhile = meanwhile
    return run_protection(photos.uri, output, CONFIG, RunOptions(), pool=pool)


def nothing() -> None:
    pass


def test_a_photo_that_changed_is_protected_as_it_is_and_the_next_run_finds_it_unchanged(
    photos: Store, tmp_path: Path
) -> None:
    output, newer = Store(str(tmp_path / "out")), encode(NEWER, "PNG")
    outcome = protect(photos, output, lambda: photos.write("ann/1.png", newer))
    assert outcome.counts == {"protected": 2}
    published = output.read("images/ann/1.png")
    assert (decode_coded(published) == protected_pixels(NEWER)).all()
    state = newest_state(output)[photos.uri_of("ann/1.png")]
    assert state.sha256 == hashlib.sha256(newer).hexdigest()
    assert protect(photos, output, nothing).counts == {"unchanged": 1}
    assert protect(photos, output, nothing).num_sets == 0
    assert output.read("images/ann/1.png") == published


def test_a_photo_that_vanished_is_skipped_and_protected_once_it_is_back(
    photos: Store, tmp_path: Path
) -> None:
    output, photo = Store(str(tmp_path / "out")), photos.read("ann/1.png")
    outcome = protect(photos, output, lambda: photos.delete(["ann/1.png"]))
    assert outcome.counts == {"protected": 1, "skipped": 1}
    assert (
        newest_state(output)[photos.uri_of("ann/1.png")].reason
        == "missing: the file is gone or leads out of INPUT"
    )
    photos.write("ann/1.png", photo)
    assert protect(photos, output, nothing).counts == {"protected": 1}
