"""Two sets in one worker: one computes at a time, the other one's files are staged meanwhile."""

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.config import load_config
from pipeline.output.ledger import Ledger
from pipeline.records import PhotoSet, SourcePhoto
from pipeline.storage.store import Store
from pipeline.worker.code_digest import code_digest
from pipeline.worker.protect_photos import PhotoSetWorker
from pipeline.worker.read_photos import read_photo_set
from pipeline.worker.settings import SetOutcome, WorkerSettings
from pipeline.worker.turns import Turns
from tests.sample_photos import jpeg_bytes, write_album
from tests.waiting import until

LONG_S = 60.0


def test_one_computes_at_a_time_and_stages_beside_the_next() -> None:
    turns, seen = Turns(), list[str]()
    may_stage = threading.Event()

    def first() -> None:
        with turns.take() as turn:
            seen.append("first computes")
            turn.pass_on()
            assert may_stage.wait(LONG_S)
            seen.append("first is staged")

    def second() -> None:
        until(lambda: seen)
        with turns.take() as turn:
            seen.append("second computes")
            may_stage.set()
            turn.be_alone()
            seen.append("second is alone")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(first), threads.submit(second)]:
            done.result(LONG_S)
    assert seen == ["first computes", "second computes", "first is staged", "second is alone"]


def test_a_turn_that_is_not_passed_on_ends_with_its_block() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="broke"), turns.take():
        raise ValueError("broke")
    with turns.take() as turn:
        turn.pass_on()
        turn.pass_on()  # counts once
    with turns.take() as turn:
        turn.be_alone()


class MeetingStore(Store):
    """Writes a set's photo once the next set has begun to compute, and only then."""

    def __init__(self, root: str, has_begun: threading.Event) -> None:
        super().__init__(root)
        self.has_begun = has_begun

    def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        if key.endswith("000.png"):
            assert self.has_begun.wait(LONG_S), "no set computed while this one was staged"
        super().write(key, data, metadata)


class Counting:
    """A method that says when it is asked a second time, and how many ever ran at once."""

    def __init__(self) -> None:
        self.second = threading.Event()
        self.num_asked = self.num_now = self.most = 0
        self.threads = set[int]()

    def __call__(self, photos: Sequence[Photo], *_: object) -> SetResult:
        self.num_asked += 1
        self.num_now += 1
        self.most = max(self.most, self.num_now)
        self.threads.add(threading.get_ident())
        if self.num_asked == 2:
            self.second.set()
        self.num_now -= 1
        return SetResult([PhotoResult(one.key, "protected", image=one.image) for one in photos])


def settings_of(output: Path) -> WorkerSettings:
    config = load_config("zero-shot", overrides=["threads=1"])
    return WorkerSettings(f"file://{output}", "run", config, "m" * 64, "w" * 64, code_digest())


def sets_below(folder: Path, names: Sequence[str]) -> list[PhotoSet]:
    write_album(folder, {f"{name}.jpg": jpeg_bytes(64, 64, seed=n) for n, name in enumerate(names)})
    return [
        PhotoSet(
            name * 64,
            name,
            (SourcePhoto(name, f"file://{folder}/{name}.jpg", f"images/{name}.png", 1, "1"),),
        )
        for name in names
    ]


def outcomes_of(worker: PhotoSetWorker, sets: Sequence[PhotoSet]) -> list[SetOutcome]:
    """Called as Ray calls it: from two threads."""
    with ThreadPoolExecutor(2) as threads:
        return [*threads.map(lambda one: worker(one, read_photo_set(one, 10**8)), sets)]


def test_a_worker_computes_a_set_while_it_stages_the_one_before(tmp_path: Path) -> None:
    method = Counting()
    store = MeetingStore(f"file://{tmp_path}/out", method.second)
    worker = PhotoSetWorker(settings_of(tmp_path / "out"), load=lambda _: method, store=store)
    outcomes = outcomes_of(worker, sets_below(tmp_path / "in", ["a", "b"]))
    assert [one.outcome for one in outcomes] == ["committed", "committed"]
    assert (method.num_asked, method.most, len(method.threads)) == (2, 1, 1)
    assert threading.get_ident() not in method.threads


def test_a_set_that_ended_a_process_before_computes_alone(tmp_path: Path) -> None:
    method = Counting()
    staged = threading.Event()

    class SlowStore(Store):
        """Takes until somebody else computes, or half a second, to write set a's photo."""

        def write(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
            if "/aaa" in key and key.endswith("000.png"):
                assert not method.second.wait(0.5), "the other set computed beside it"
                staged.set()
            super().write(key, data, metadata)

    store = SlowStore(f"file://{tmp_path}/out")
    settings = settings_of(tmp_path / "out")
    first, risky = sets_below(tmp_path / "in", ["a", "b"])
    earlier = Ledger(store, "run", node="gone")
    assert dataclasses.is_dataclass(earlier.begin(risky))  # and never ended
    worker = PhotoSetWorker(settings, load=lambda _: method, store=store)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(worker, first, read_photo_set(first, 10**8))
        until(lambda: method.num_asked)
        other = threads.submit(worker, risky, read_photo_set(risky, 10**8))
        assert [one.result().outcome, other.result().outcome] == ["committed", "committed"]
    assert staged.is_set()
