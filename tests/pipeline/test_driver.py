"""The driver's book-keeping: what it makes of outcomes, and the exit code of a run."""

import dataclasses
import threading
from collections.abc import Iterator

import pytest

from pipeline.config import OperationSettings
from pipeline.driver import Driver, LimitReached, TooManyDeferred
from pipeline.options import RunOptions
from pipeline.output.fold import Fold
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.output.manifest import read_manifest
from pipeline.planning.planned_sets import PlannedSets
from pipeline.reasons import Reason
from pipeline.records import CommitRecord, PhotoSet, StagedRow, photo_row
from pipeline.reporting.reporter import DecidedSet, Reporter, Reporters
from pipeline.reporting.tally import Tally
from pipeline.storage.store import Store
from pipeline.worker.settings import SetOutcome
from tests.pipeline.mini_run import done_record, photo_set, protect, source_photo

RUN = "r1"
INPUTS = {f"{identity}/{n}.jpg": f"{identity}{n}".encode() for identity in "abc" for n in (1, 2)}


class Heard(Reporter):
    """Remembers what the driver says of sets."""

    def __init__(self) -> None:
        self.decided: list[dict[str, int]] = []
        self.causes: list[str] = []

    def set_decided(self, decided: DecidedSet) -> None:
        self.decided.append(dict(decided.statuses))

    def deferred(self, cause: str) -> None:
        self.causes.append(cause)


@pytest.fixture
def store(local_store: Store) -> Store:
    return local_store


@pytest.fixture
def lock(store: Store) -> Iterator[OutputLock]:
    with OutputLock(store, RUN) as lock:
        yield lock


@pytest.fixture
def sets() -> list[PhotoSet]:
    """Three photo sets of two photos."""
    photos = [source_photo(name, content) for name, content in INPUTS.items()]
    return [photo_set(photos[first : first + 2]) for first in (0, 2, 4)]


def driver_of(
    store: Store,
    lock: OutputLock,
    sets: list[PhotoSet],
    reporter: Reporter | None = None,
    max_worker_hours: float | None = None,
    **operation: object,
) -> Driver:
    settings = OperationSettings.model_validate(operation)
    tally = Tally()
    reporters = Reporters(tally, reporter or Reporter())
    fold = Fold(store, RUN, lock.regain)
    return Driver(store, RUN, settings, reporters, tally, PlannedSets(sets), fold, max_worker_hours)


def committed(store: Store, work: PhotoSet, status: str = "protected") -> SetOutcome:
    """Decides a set as a worker does, before the driver hears of it."""
    ledger = Ledger(store, RUN)
    attempt = ledger.begin(work)
    assert isinstance(attempt, Attempt)
    record = done_record(store, ledger, work, attempt, INPUTS)
    if status == "failed":
        rows = [
            StagedRow(photo_row(photo, "failed", work, Reason("ValueError")), photo.output_key)
            for photo in work.photos
        ]
        record = dataclasses.replace(record, outcome="failed", rows=rows)
    assert ledger.commit(dataclasses.replace(record, seconds=3.0, gpu_seconds=1.5))
    return SetOutcome(work.key, 0, "committed", {status: 2}, seconds=3.0, gpu_seconds=1.5)


def take_and_wait(driver: Driver, outcome: SetOutcome) -> None:
    driver.take(outcome)
    driver.wait_for_published()


def deferred(work: PhotoSet, cause: str = "store_throttled") -> SetOutcome:
    return SetOutcome(work.key, 0, "deferred", {"deferred": 2}, cause)


def left(driver: Driver) -> list[PhotoSet]:
    found = [photo_set for window in driver.windows(2) for photo_set in window]
    return sorted(found, key=lambda one: one.photos[0].uri)


def statuses(store: Store) -> dict[str, str]:
    rows = read_manifest(store).to_pylist()
    return {row["source_uri"].removeprefix("file:///in/"): row["status"] for row in rows}


def test_a_decided_set_is_published_at_once_and_folded_when_asked(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    heard = Heard()
    driver = driver_of(store, lock, sets, heard)
    driver.take(committed(store, sets[1]))
    driver.wait_for_published()
    assert store.read("images/b/1.jpg.png") == protect(INPUTS["b/1.jpg"])
    assert heard.decided == [{"protected": 2}]
    assert left(driver) == [sets[0], sets[2]]
    assert statuses(store) == {}
    driver.fold()
    assert statuses(store) == {"b/1.jpg": "protected", "b/2.jpg": "protected"}


def test_progress_counts_a_computed_set_until_it_is_said_to_be_decided(
    store: Store, lock: OutputLock, sets: list[PhotoSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, may_publish = Heard(), threading.Event()
    publish = Fold._publish_now
    monkeypatch.setattr(
        Fold, "_publish_now", lambda fold, name: may_publish.wait() and publish(fold, name)
    )
    driver = driver_of(store, lock, sets, heard)
    driver.take(committed(store, sets[1]))
    assert (heard.decided, driver.computed()) == ([], {sets[1].key: 2})
    may_publish.set()
    driver.wait_for_published()
    assert (heard.decided, driver.computed()) == ([{"protected": 2}], {})


def test_it_folds_by_itself_when_it_is_time(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets, fold_every_s=1e-9)
    driver.take(committed(store, sets[0]))
    assert len(statuses(store)) == 2


def test_a_set_that_ray_ran_twice_counts_once(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    heard = Heard()
    driver = driver_of(store, lock, sets, heard)
    outcome = committed(store, sets[0])
    driver.take(outcome)
    driver.take(dataclasses.replace(outcome, outcome="already"))
    driver.wait_for_published()
    assert heard.decided == [{"protected": 2}]
    result = driver.outcome(RunOptions())
    assert (result.counts["protected"], result.num_sets, result.gpu_seconds) == (2, 1, 1.5)


def test_what_a_stopped_worker_could_not_tell_is_decided_all_the_same(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    heard = Heard()
    driver = driver_of(store, lock, sets, heard)
    driver.take(deferred(sets[0]))
    committed(store, sets[0])  # by the second try; the run ends before its outcome comes
    assert driver.settle(stopped=True) is None
    driver.record_undecided()
    assert heard.decided == [{"protected": 2}]
    assert left(driver) == sets[1:]
    assert read_manifest(store).num_rows == len(INPUTS)  # none both protected and deferred
    assert statuses(store)["a/1.jpg"] == "protected"
    outcome = driver.outcome(RunOptions())
    assert outcome.counts == {"protected": 2, "deferred": 4}
    assert (outcome.causes, outcome.gpu_seconds) == ({}, 1.5)


def test_a_deferred_set_stays_undecided_and_leaves_a_row_with_its_cause(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    heard = Heard()
    driver = driver_of(store, lock, sets, heard)
    driver.take(deferred(sets[0]))
    driver.take(committed(store, sets[1]))
    assert left(driver) == [sets[0], sets[2]]
    driver.record_undecided()
    reasons = {
        row["source_uri"].removeprefix("file:///in/"): (row["status"], row["reason"])
        for row in read_manifest(store).to_pylist()
    }
    assert reasons["a/1.jpg"] == ("deferred", "store_throttled")
    assert reasons["c/2.jpg"] == ("deferred", "not_reached")
    outcome = driver.outcome(RunOptions())
    assert (outcome.exit_code, outcome.causes) == (3, {"store_throttled": 1})
    assert outcome.counts == {"protected": 2, "deferred": 4}
    assert heard.causes == ["store_throttled"]


def test_a_set_that_succeeds_after_a_deferral_is_no_longer_one(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets[:1])
    driver.take(deferred(sets[0]))
    driver.take(committed(store, sets[0]))
    outcome = driver.outcome(RunOptions())
    assert (outcome.exit_code, outcome.counts, outcome.causes) == (0, {"protected": 2}, {})


def test_too_many_deferrals_among_the_last_sets_stop_the_run(
    store: Store, lock: OutputLock
) -> None:
    sets = [photo_set([source_photo(f"p{n}/1.jpg", b"")]) for n in range(40)]
    driver = driver_of(store, lock, sets)
    for number, work in enumerate(sets[:20]):
        driver.take(deferred(work, "disk_full" if number else "store_denied"))
    with pytest.raises(TooManyDeferred, match="disk_full"):
        driver.take(deferred(sets[20], "disk_full"))
    assert driver.num_undecided == 40


def test_a_limit_leaves_what_is_not_begun_and_still_reports_what_was_put_off(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets, max_worker_hours=3 / 3600)
    driver.take(deferred(sets[0]))
    with pytest.raises(LimitReached, match="max-worker-hours"):
        driver.take(committed(store, sets[1]))
    driver.fold()
    driver.record_undecided()
    assert statuses(store) == {
        "a/1.jpg": "deferred",
        "a/2.jpg": "deferred",
        "b/1.jpg": "protected",
        "b/2.jpg": "protected",
    }
    outcome = driver.outcome(RunOptions())
    assert (outcome.exit_code, outcome.num_later) == (3, 2)
    assert outcome.counts == {"protected": 2, "deferred": 2}


def test_a_limit_reached_with_the_last_set_stops_nothing(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets[:1], max_worker_hours=3 / 3600)
    driver.take(committed(store, sets[0]))
    assert driver.outcome(RunOptions()).exit_code == 0


@pytest.mark.parametrize(
    ("max_failed", "batch", "exit_code"), [(0.3, False, 2), (0.3, True, 0), (0.4, False, 0)]
)
def test_the_exit_code_says_whether_too_many_failed(
    store: Store,
    lock: OutputLock,
    sets: list[PhotoSet],
    max_failed: float,
    batch: bool,
    exit_code: int,
) -> None:
    driver = driver_of(store, lock, sets, max_failed=max_failed)
    driver.take(committed(store, sets[0], "failed"))
    driver.take(committed(store, sets[1]))
    driver.take(committed(store, sets[2]))
    assert driver.outcome(RunOptions(batch=batch)).exit_code == exit_code


def test_photos_left_undecided_outweigh_failures_also_in_a_batch(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets)
    driver.take(committed(store, sets[0], "failed"))
    assert driver.outcome(RunOptions(batch=True)).exit_code == 3


def test_lost_staged_data_does_not_stop_the_run_and_is_recorded_as_failed(
    store: Store, lock: OutputLock, sets: list[PhotoSet]
) -> None:
    driver = driver_of(store, lock, sets)
    outcome = committed(store, sets[0])
    record = Ledger(store, RUN).read_commit(sets[0].key)
    assert isinstance(record, CommitRecord)
    Ledger(store, RUN).delete_data(record.set_key, record.attempt)
    driver.take(outcome)
    driver.fold()
    assert statuses(store) == {"a/1.jpg": "failed", "a/2.jpg": "failed"}


def test_nothing_is_published_once_the_lock_is_gone(store: Store, sets: list[PhotoSet]) -> None:
    with OutputLock(store, RUN) as lock:
        driver = driver_of(store, lock, sets)
        outcome = committed(store, sets[0])
    with pytest.raises(LockLostError):
        take_and_wait(driver, outcome)
    assert not store.exists("images/a/1.jpg.png")
