"""The gate before the first publish of a method: what passes, what stops, what a kill leaves."""

import dataclasses
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from dladiff.results import IdentityCosine, Photo, SetResult
from pipeline.config import RunConfig, load_config
from pipeline.images.coding import decode_coded
from pipeline.inspection.preview import preview_run
from pipeline.inspection.status import read_status, status_lines
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.gate import is_open
from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import unfinished_runs
from pipeline.reporting.displays import summary_lines
from pipeline.reporting.tally import Tally
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.upkeep.forget import forget_identities
from tests.pipeline.mortal_run import Killed, MortalStore, OwnProcess, protected_pixels
from tests.sample_photos import encode, photo_image

UNLIKE, AS_BEFORE = ([IdentityCosine("sface", False, 1.0, now, now)] for now in (0.1, 0.9))
GOOD = {"identity_cosines": UNLIKE, "psnr_db": 35.0, "changed_pixels": 0.2}
ALBUM = {f"{who}/{number}.png": 10 * place + number
         for place, who in enumerate(("ann", "bob", "cid")) for number in (1, 2)}  # fmt: skip
"""Photos by name, as the number that makes their pixels: three sets."""


class Measuring(OwnProcess):
    """A pool whose method measures what a test says."""

    figures: dict[str, Any] = GOOD

    def _protect(self, photos: Sequence[Photo], *_: object) -> SetResult:
        result = super()._protect(photos)
        return SetResult([dataclasses.replace(one, **self.figures) for one in result.photos])


def config_of(*overrides: str) -> RunConfig:
    quick = ["threads=1", "max_set_photos=2", "lock_ttl_s=60", "canary.min_likeness_photos=2"]
    return load_config("zero-shot", overrides=[*quick, *overrides])


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name, seed in ALBUM.items():
        add(tmp_path / "in", name, seed)
    return tmp_path / "in"


def add(album: Path, name: str, seed: int) -> None:
    path = album / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(photo_image(32, 32, seed), "PNG"))
    os.utime(path, (1e9, 1e9))


@dataclasses.dataclass
class Runs:
    """Runs over one album into one OUTPUT; counts what they compute."""

    album: Path
    output: str
    num_computed: int = 0

    def __call__(
        self,
        *overrides: str,
        figures: dict[str, Any] | None = None,
        dies_at: int | None = None,
        tally: Tally | None = None,
        **options: Any,
    ) -> RunOutcome:
        store = MortalStore(self.output)
        store.dies_at, store.seconds_later = dies_at, 0.0 if dies_at else 1e6
        pool = Measuring(store)
        pool.figures = GOOD if figures is None else figures
        try:
            return run_protection(
                str(self.album),
                store,
                config_of(*overrides),
                RunOptions(**options),
                tally=tally,
                pool=pool,
            )
        finally:
            self.num_computed += pool.num_computed
            self.num_changes = store.num_changes

    @property
    def store(self) -> Store:
        return Store(self.output)

    def published(self) -> set[str]:
        keys = (info.key for info in self.store.list("images/"))
        return {key.removeprefix("images/") for key in keys}

    def check_whole(self, names: Collection[str] = ALBUM.keys(), seeds_from: int = 0) -> None:
        """Every photo is served once, as its row says, and nothing is left to finish."""
        assert self.published() == set(names)
        for name in names:
            served = decode_coded(self.store.read(f"images/{name}"))
            seed = ALBUM[name] + seeds_from
            assert (served == protected_pixels(photo_image(32, 32, seed))).all()
        assert read_manifest(self.store).num_rows == len(names)
        for state in newest_state(self.store).values():
            assert state.output_key is not None
            assert self.store.sha256_of(state.output_key) == state.output_sha256
        assert unfinished_runs(self.store) == []
        assert not [info.key for info in self.store.list("runs/") if "/data/" in info.key]


@pytest.fixture
def runs(album: Path, tmp_path: Path) -> Runs:
    return Runs(album, str(tmp_path / "out"))


def test_a_method_that_passes_is_published_and_judged_only_once(runs: Runs) -> None:
    first = runs("canary.num_sets=2", max_sets=2)
    assert (first.exit_code, first.counts, first.num_held) == (0, {"protected": 4}, 0)
    assert len(runs.published()) == 4
    metrics = runs.store.read(f"runs/{first.run_id}/metrics.prom").decode()
    assert re.search(r"upload_to_protected_seconds_count\{[^}]*\} 4.0", metrics)  # held ones too
    second = runs(figures={**GOOD, "psnr_db": 1.0})
    assert (second.exit_code, second.counts) == (0, {"protected": 2})
    runs.check_whole()


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"identity_cosines": AS_BEFORE}, r"photo is 0.9, above .*canary.max_likeness = 0.8"),
        ({"psnr_db": 20.0}, r"PSNR in dB is 20, below operation.canary.min_psnr_db = 25"),
        ({"changed_pixels": 0.0}, r"changed pixels is 0, below .*min_changed_pixels = 0.0001"),
    ],
)
def test_a_method_that_does_nothing_or_breaks_photos_is_never_published(
    runs: Runs, figures: dict[str, Any], complaint: str
) -> None:
    outcome = runs("canary.num_sets=2", figures={**GOOD, **figures}, batch=True)
    assert outcome.message is not None
    assert pytest.raises(AssertionError, match=complaint).matches(AssertionError(outcome.message))
    assert (outcome.exit_code, outcome.num_held, outcome.counts) == (1, 4, {})
    assert runs.num_computed == 4  # the third set was not begun
    assert runs.published() == set()
    assert read_manifest(runs.store).num_rows == 0
    text = "\n".join(summary_lines(outcome))
    assert "--canary 0" in text
    assert "the same command goes on" not in text


def test_a_plan_does_not_count_what_waits_for_the_gate_as_to_do(runs: Runs) -> None:
    runs(figures={**GOOD, "psnr_db": 20.0}, max_sets=2)
    preview = preview_run(str(runs.album), runs.output, config_of(), RunOptions())
    assert preview.num_photos == 2
    assert "4 photos held back until the canary is judged" in preview.notes[0]
    others = config_of("loop.num_steps=3")  # other settings do them all again
    assert preview_run(str(runs.album), runs.output, others, RunOptions()).num_photos == 6


def test_nothing_is_published_before_the_gate_also_where_a_run_folds_often(runs: Runs) -> None:
    tally = Tally()
    outcome = runs("fold_every_s=1e-9", figures={**GOOD, "psnr_db": 20.0}, tally=tally)
    assert (outcome.exit_code, outcome.num_held, tally.backlog) == (1, 6, 6)
    assert runs.published() == set()
    lines = "\n".join(status_lines(read_status(runs.store)))
    assert "held back   6 photos: the median PSNR" in lines
    assert "--canary 0" in lines


def test_after_a_failure_the_same_settings_are_judged_again_without_computing(runs: Runs) -> None:
    low = {**GOOD, "psnr_db": 20.0}
    runs("canary.num_sets=2", figures=low)
    again = runs("canary.num_sets=2", figures=low)
    assert (again.exit_code, runs.num_computed) == (1, 4)
    lower = runs("canary.num_sets=2", "canary.min_psnr_db=19", figures=low)
    assert (lower.exit_code, lower.counts, runs.num_computed) == (0, {"protected": 2}, 6)
    runs.check_whole()


def test_canary_0_publishes_what_was_held_back(runs: Runs) -> None:
    runs(figures={**GOOD, "psnr_db": 20.0})
    outcome = runs("canary.num_sets=0")
    assert (outcome.exit_code, outcome.counts, runs.num_computed) == (0, {}, 6)
    runs.check_whole()


def test_other_settings_do_the_held_photos_again_and_nothing_old_appears_later(runs: Runs) -> None:
    runs(figures={**GOOD, "psnr_db": 20.0})
    outcome = runs("loop.num_steps=7")
    assert (outcome.exit_code, outcome.counts) == (0, {"protected": 6})
    runs.check_whole()
    before = {key: runs.store.sha256_of(f"images/{key}") for key in ALBUM}
    kept = runs("canary.num_sets=0", on_method_change="keep")
    assert kept.counts == {}
    assert {key: runs.store.sha256_of(f"images/{key}") for key in ALBUM} == before


def test_a_new_method_is_judged_while_the_old_one_goes_on_being_served(runs: Runs) -> None:
    runs()
    worse = {**GOOD, "changed_pixels": 0.0}
    outcome = runs("seed=5", figures=worse, on_method_change="reprotect")
    assert (outcome.exit_code, outcome.num_held) == (1, 6)
    runs_held = unfinished_runs(runs.store)
    assert len(runs_held) == 1
    assert runs().counts == {}  # back to the old settings: nothing to do, and nothing waits
    runs.check_whole()


def test_what_a_stopped_canary_computed_counts_in_the_next_run(runs: Runs) -> None:
    first = runs("canary.num_sets=3", max_worker_hours=1e-9)
    assert (first.exit_code, first.num_held, first.num_later) == (0, 2, 4)
    assert "held back until" in "\n".join(summary_lines(first))
    second = runs("canary.num_sets=3", max_worker_hours=1e-9)
    assert (second.num_held, runs.published()) == (2, set())
    third = runs("canary.num_sets=3")
    assert (third.exit_code, third.counts, runs.num_computed) == (0, {"protected": 2}, 6)
    runs.check_whole()


def test_a_photo_that_changed_while_it_was_held_back_is_served_as_it_is_now(runs: Runs) -> None:
    runs("canary.num_sets=3", max_worker_hours=1e-9, run_id="job")
    (held,) = {info.key.split("/")[-1] for info in runs.store.list("runs/job/commits/")}
    assert held.endswith(".0.json")
    for name in ALBUM:
        add(runs.album, name, ALBUM[name] + 100)
        os.utime(runs.album / name, (2e9, 2e9))
    outcome = runs("canary.num_sets=3", run_id="job")  # as a controller's second try
    assert outcome.counts == {"protected": 6}
    runs.check_whole(seeds_from=100)


def test_photos_without_an_image_are_decided_at_once_and_open_no_gate(runs: Runs) -> None:
    for name in ALBUM:
        (runs.album / name).write_bytes(b"no image")
    outcome = runs()
    assert (outcome.counts, outcome.num_held) == ({"skipped": 6}, 0)
    assert read_manifest(runs.store).num_rows == 6
    assert unfinished_runs(runs.store) == []
    (digest,) = {state.method_digest for state in newest_state(runs.store).values()}
    assert digest is not None
    assert not is_open(runs.store, digest)


def test_a_forgotten_person_is_not_among_what_is_published_later(runs: Runs) -> None:
    low = {**GOOD, "psnr_db": 20.0}
    runs(figures=low)
    forget_identities(runs.store, ["ann"])
    assert runs.published() == set()
    assert runs("canary.num_sets=0").exit_code == 0
    assert runs.published() == {"bob/1.png", "bob/2.png", "cid/1.png", "cid/2.png"}


def test_a_few_hard_photos_do_not_close_the_gate(runs: Runs) -> None:
    missed = {**GOOD, "identity_cosines": AS_BEFORE}
    assert runs("canary.min_likeness_photos=7", figures=missed).exit_code == 0
    runs.check_whole()


@pytest.mark.parametrize("second_id", ["next", "new"])
def test_a_run_killed_at_any_change_around_the_gate_is_finished_by_the_next(
    runs: Runs, second_id: str, tmp_path: Path
) -> None:
    overrides = ("canary.num_sets=2", "fold_every_s=1e-9", "canary.min_likeness_photos=9")
    for name in ("ann/2.png", "bob/2.png", "cid/2.png"):
        (runs.album / name).unlink()
    runs(*overrides, run_id="new")
    total = runs.num_changes
    shutil.rmtree(runs.output)
    seen = set()
    for at in range(1, total + 1):
        each = Runs(runs.album, str(tmp_path / f"killed-{at}"))
        with pytest.raises(Killed):
            each(*overrides, run_id="new", dies_at=at)
        opened = each.store.exists("gates/") or any(each.store.list("gates/"))
        seen.add((bool(opened), bool(each.published())))
        assert opened or not each.published()
        each(*overrides, run_id=second_id)
        each.check_whole(["ann/1.png", "bob/1.png", "cid/1.png"])
        assert each.num_computed <= 3 + 1  # at most the set in flight
        shutil.rmtree(each.output)
    assert seen == {(False, False), (True, False), (True, True)}
