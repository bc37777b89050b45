"""A signal at the end of a run: an interruption that a person can go on from, not a sudden end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.interruption import RunInterrupted
from pipeline.options import RunOptions
from pipeline.pool import PoolSize
from pipeline.reporting.reporter import Reporter
from pipeline.run import run_protection
from pipeline.storage.store import open_store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, photo_image


class LikeRay(OwnProcess):
    """A pool that, as ``ray.init`` does, leaves a handler of its own for SIGTERM."""

    @contextmanager
    def session(self, config: RunConfig, num_sets: int) -> Iterator[PoolSize]:
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("Ray's handler ends the process"))
        with super().session(config, num_sets) as size:
            yield size


class TerminatedAtTheFold(Reporter):
    def stage(self, name: str) -> None:
        if name == "fold":
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_while_the_manifest_is_written_is_an_interruption(tmp_path: Path) -> None:
    photo = tmp_path / "in" / "ann" / "1.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(encode(photo_image(32, 32, 1), "PNG"))
    store = open_store(str(tmp_path / "out"))
    with pytest.raises(RunInterrupted):
        run_protection(
            str(tmp_path / "in"), store, CONFIG, RunOptions(run_id="one"),
            reporter=TerminatedAtTheFold(), pool=LikeRay(store),
        )  # fmt: skip
    again = run_protection(
        str(tmp_path / "in"), store, CONFIG, RunOptions(run_id="two"), pool=OwnProcess(store)
    )
    assert again.exit_code == 0
    assert again.counts == {}, "what was decided is not done again"
