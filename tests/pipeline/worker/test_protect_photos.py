"""A worker without Ray: photo sets in, commit records out, the three kinds of trouble apart."""

import dataclasses
import gc
import os
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dladiff.config import MethodSettings
from dladiff.errors import ModelError
from dladiff.results import Cost, Photo, PhotoResult, SetResult
from pipeline.config import load_config
from pipeline.errors import BrokenSetup, ConfigurationError, DeviceFault, StoreThrottled
from pipeline.images.coding import decode_coded
from pipeline.images.files import DecodedPhoto, PhotoLimits, decode_photo
from pipeline.output.ledger import Ledger
from pipeline.reasons import Reason
from pipeline.records import CommitRecord, PhotoSet, ReadPhoto, SourcePhoto
from pipeline.storage.store import open_store
from pipeline.worker import compute_set
from pipeline.worker.code_digest import code_digest
from pipeline.worker.preflight import protect_built_in_photo
from pipeline.worker.protect_photos import PhotoSetWorker
from pipeline.worker.protector import Protector, load_protector
from pipeline.worker.read_photos import read_photo_set
from pipeline.worker.settings import SetOutcome, WorkerSettings
from tests.sample_photos import face_album, jpeg_bytes, write_album

RUN = "run-1"


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    config = load_config("zero-shot", overrides=["loop.num_steps=2", "threads=1"])
    return WorkerSettings(
        output_uri=f"file://{tmp_path}/out",
        run_id=RUN,
        config=config,
        method_digest="m" * 64,
        models_digest="w" * 64,
        code_digest=code_digest(),
    )


@pytest.fixture
def photo_set(tmp_path: Path) -> PhotoSet:
    folder = face_album(tmp_path / "in", {"ann": 2}) / "ann"
    photos = tuple(
        SourcePhoto(
            "ann", f"file://{path}", f"images/ann/{path.name}.png", path.stat().st_size, "1"
        )
        for path in sorted(folder.iterdir())
    )
    return PhotoSet(key="k" * 64, identity="ann", photos=photos)


def decide(worker: PhotoSetWorker, photo_set: PhotoSet) -> SetOutcome:
    return worker(photo_set, read_photo_set(photo_set, 10**8))


class Left(BaseException):
    """Where a worker ends its process: not an Exception, so that no code can handle it."""


def leave(status: int) -> NoReturn:
    raise Left(status)


def decided(settings: WorkerSettings, photo_set: PhotoSet) -> CommitRecord:
    """What the ledger holds of a set that a worker committed."""
    record = Ledger(open_store(settings.output_uri), RUN).read_commit(photo_set.key)
    assert record is not None
    return record


def test_a_set_is_committed_once_with_staged_pixels_and_full_rows(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    worker = PhotoSetWorker(settings)
    first = decide(worker, photo_set)
    assert (first.outcome, first.statuses) == ("committed", {"protected": 2})
    assert decide(worker, photo_set).outcome == "already"
    store = open_store(settings.output_uri)
    for staged in decided(settings, photo_set).rows:
        assert staged.staged_key is not None
        image, row = decode_coded(store.read(staged.staged_key)), staged.row
        assert image.shape[:2] == (row.height, row.width)
        assert row.max_change_levels is not None
        assert 0 < row.max_change_levels <= 11
        assert row.method_digest == "m" * 64
    assert SetOutcome.from_json(first.to_json()) == first


def test_a_set_that_fails_twice_is_failed_with_the_class_of_its_error(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    calls: list[int] = []

    def load_failing_on_people(given: WorkerSettings) -> Protector:
        protect = load_protector(given)

        def fail(photos: Sequence[Photo], *others: Any) -> SetResult:
            if photos[0].key == "preflight":  # the built-in photo: it is these, not this process
                return protect(photos, *others)
            calls.append(1)
            raise ZeroDivisionError("secret name")

        return fail

    outcome = decide(PhotoSetWorker(settings, load=load_failing_on_people), photo_set)
    assert (outcome.outcome, outcome.statuses, len(calls)) == ("committed", {"failed": 2}, 2)
    record = decided(settings, photo_set)
    assert [staged.row.reason for staged in record.rows] == ["ZeroDivisionError"] * 2


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (StoreThrottled("slow down"), "store_throttled"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device_fault"),
        (OSError(28, "No space left on device"), "disk_full"),
        (MemoryError(), "out_of_memory"),
    ],
)
def test_a_trouble_of_the_environment_defers_and_is_no_crash(
    settings: WorkerSettings,
    photo_set: PhotoSet,
    error: Exception,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> SetResult:
        raise error

    worker = PhotoSetWorker(settings, load=lambda _: fail)
    outcome = decide(worker, photo_set)
    assert (outcome.outcome, outcome.cause) == ("deferred", cause)
    ledger = Ledger(open_store(settings.output_uri), RUN)
    assert ledger.read_commit(photo_set.key) is None
    assert [ledger.state_of(attempt) for attempt in ledger.attempts(photo_set.key)] == ["closed"]
    # Only a fault of the device leaves a process that no other set may be given.
    monkeypatch.setattr(os, "_exit", leave)
    if cause == DeviceFault.cause:
        with pytest.raises(Left, match="1"):
            decide(worker, photo_set)
    else:
        assert decide(worker, photo_set).cause == cause


def test_memory_running_out_halves_the_micro_batch(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    batches: list[int] = []

    def load_hungry(settings: WorkerSettings) -> Protector:
        protect = load_protector(settings)

        def hungry(
            photos: Sequence[Photo],
            references: Sequence[Photo],
            method: MethodSettings,
            on_progress: Callable[[str, float], None],
            /,
        ) -> SetResult:
            batches.append(method.micro_batch)
            if method.micro_batch > 2:
                raise MemoryError
            return protect(photos, references, method, on_progress)

        return hungry

    worker = PhotoSetWorker(settings, load=load_hungry)
    assert decide(worker, photo_set).statuses == {"protected": 2}
    assert batches == [8, 4, 2]


def test_an_unreadable_store_defers_an_unreadable_photo_does_not(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    worker = PhotoSetWorker(settings)
    reads = read_photo_set(photo_set, 10**8)
    away = [reads[0], ReadPhoto(None, None, cause="store_unreachable")]
    assert worker(photo_set, away).cause == "store_unreachable"
    gone = [reads[0], ReadPhoto(None, None, Reason("missing"))]
    assert worker(photo_set, gone).statuses == {"protected": 1, "skipped": 1}


def test_content_that_did_not_change_is_answered_as_unchanged(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    worker = PhotoSetWorker(settings)
    decide(worker, photo_set)
    rows = decided(settings, photo_set).rows
    touched = tuple(
        dataclasses.replace(photo, version="2", previous_sha256=each.row.source_sha256)
        for photo, each in zip(photo_set.photos, rows, strict=True)
    )
    again = PhotoSet("t" * 64, "ann", touched)
    assert decide(worker, again).statuses == {"unchanged": 2}
    record = decided(settings, again)
    assert [photo.source_version for photo in record.unchanged] == ["2", "2"]
    assert record.rows == []
    assert record.cost["seconds"] == {}


class Negative:
    """A stand-in for the method without models; remembers what it was given, set by set."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int]] = []

    def __call__(
        self, photos: Sequence[Photo], references: Sequence[Photo], *_: object
    ) -> SetResult:
        self.given.append((len(photos), len(references)))
        results = [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        return SetResult(results, cost=Cost(vae_passes=3, seconds={"layer2": 1.0}))


def grey_set(folder: Path, names: list[str], references: tuple[str, ...] = ()) -> PhotoSet:
    """Photos of 100 x 100 pixels, each of another seed."""

    def photo(name: str) -> SourcePhoto:
        return SourcePhoto("ann", f"file://{folder}/{name}", f"images/{name}.png", 1, "1")

    every = [*names, *references]
    write_album(folder, {name: jpeg_bytes(100, 100, seed=n) for n, name in enumerate(every)})
    return PhotoSet("k" * 64, "ann", tuple(map(photo, names)), tuple(map(photo, references)))


def with_limit(settings: WorkerSettings, megapixels: float) -> WorkerSettings:
    operation = settings.config.operation.model_copy(update={"max_set_megapixels": megapixels})
    # Of all methods the paper's alone reads references.
    config = load_config("paper").model_copy(update={"operation": operation})
    return dataclasses.replace(settings, config=config)


def test_a_set_with_too_many_pixels_is_protected_in_groups(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    names = [f"{n}.jpg" for n in range(5)]
    photo_set = grey_set(tmp_path / "in", names, ("r.jpg",))
    method = Negative()
    worker = PhotoSetWorker(with_limit(settings, 0.03), load=lambda _: method)
    assert decide(worker, photo_set).statuses == {"protected": 5}
    assert method.given == [(2, 1), (2, 1), (1, 1)]
    store = open_store(settings.output_uri)
    record = decided(settings, photo_set)
    assert [each.row.source_uri.rpartition("/")[2] for each in record.rows] == names
    assert (record.cost["vae_passes"], record.cost["seconds"]) == (9, {"layer2": 3.0})
    for staged, photo in zip(record.rows, photo_set.photos, strict=True):
        content = Path(photo.uri.removeprefix("file://")).read_bytes()
        clean = decode_photo(content, PhotoLimits()).image
        assert staged.staged_key is not None
        assert (decode_coded(store.read(staged.staged_key)) == 255 - clean).all()


def protected_pixels(
    settings: WorkerSettings, photo_set: PhotoSet, method: Protector
) -> list[bytes]:
    """Staged files of a set, in the plan's order."""
    worker = PhotoSetWorker(settings, load=lambda _: method)
    assert decide(worker, photo_set).outcome == "committed"
    store = open_store(settings.output_uri)
    keys = [staged.staged_key for staged in decided(settings, photo_set).rows]
    return [store.read(key) for key in keys if key is not None]


class Keyed(Negative):
    """Makes of each photo what its key, and its place among the others, say."""

    def __call__(
        self, photos: Sequence[Photo], references: Sequence[Photo], *_: object
    ) -> SetResult:
        assert len({one.key for one in [*photos, *references]}) == len(photos) + len(references)
        return SetResult(
            [
                PhotoResult(one.key, "protected", image=one.image ^ (int(one.key[:2], 16) ^ place))
                for place, one in enumerate(photos)
            ]
        )


def test_the_same_album_at_two_places_gives_equal_bytes(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    names = [f"{n}.jpg" for n in range(4)]
    here = grey_set(tmp_path / "here", names)
    there = grey_set(tmp_path / "there", names)
    there = dataclasses.replace(there, photos=there.photos[::-1])  # its URIs sort otherwise
    other_output = dataclasses.replace(settings, output_uri=f"file://{tmp_path}/other")
    first = protected_pixels(settings, here, Keyed())
    assert protected_pixels(other_output, there, Keyed()) == first[::-1]
    assert len(set(first)) == 4


def test_the_same_content_twice_in_a_set_is_two_photos(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    photo_set = grey_set(tmp_path / "in", ["a.jpg", "b.jpg"], ("c.jpg",))
    for name in ("b.jpg", "c.jpg"):
        shutil.copy(tmp_path / "in/a.jpg", tmp_path / "in" / name)
    assert len(protected_pixels(settings, photo_set, Keyed())) == 2


def test_pixels_of_other_groups_are_not_held(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_set = grey_set(tmp_path / "in", [f"{n}.jpg" for n in range(4)])
    alive: weakref.WeakSet[DecodedPhoto] = weakref.WeakSet()
    most: list[int] = []

    class Watched(DecodedPhoto):
        """Hashable by identity, so that a weak set can hold it."""

        __hash__ = object.__hash__

    def watched(content: bytes, limits: PhotoLimits) -> DecodedPhoto:
        plain = decode_photo(content, limits)
        found = Watched(plain.image)
        alive.add(found)
        gc.collect()
        most.append(len(alive))
        return found

    monkeypatch.setattr(compute_set, "decode_photo", watched)
    worker = PhotoSetWorker(with_limit(settings, 0.02), load=lambda _: Negative())
    assert decide(worker, photo_set).statuses == {"protected": 4}
    assert most == [1, 2, 1, 2]


def test_a_worker_of_other_code_refuses_to_start(settings: WorkerSettings) -> None:
    with pytest.raises(ConfigurationError, match="same image"):
        PhotoSetWorker(dataclasses.replace(settings, code_digest="0" * 64))


def test_preflight_protects_the_built_in_photo(settings: WorkerSettings) -> None:
    protect_built_in_photo(load_protector(settings), settings.config.method)


def test_where_not_even_the_built_in_photo_is_protected_no_photo_is_to_blame(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    def fail(*args: object) -> SetResult:
        raise ZeroDivisionError

    worker = PhotoSetWorker(dataclasses.replace(settings), load=lambda _: fail)
    with pytest.raises(BrokenSetup, match="not even the built-in photo was protected"):
        decide(worker, photo_set)
    assert not list(Ledger(open_store(settings.output_uri), RUN).commit_names())


def test_models_are_loaded_with_the_first_photo_to_compute_where_all_seems_known(
    settings: WorkerSettings, photo_set: PhotoSet
) -> None:
    def load(_: WorkerSettings) -> Protector:
        raise ModelError("loaded")

    late = dataclasses.replace(settings, load_at_start=False)
    worker = PhotoSetWorker(late, load=load)
    with pytest.raises(BrokenSetup, match="loaded"):
        decide(worker, photo_set)
