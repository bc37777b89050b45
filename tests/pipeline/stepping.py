"""A method that only takes its time, step by step, and what a display sees of its steps."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.reporting.tally import Tally
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings

NUM_STEPS = 8


def load_stepping(_: WorkerSettings, step_s: float = 0.4) -> Protector:
    """Photos become their negatives, after ``NUM_STEPS`` steps of so many seconds."""

    def protect(photos: Sequence[Photo], *rest: Any) -> SetResult:
        *_, on_progress = rest
        for step in range(1, NUM_STEPS + 1):
            time.sleep(step_s)
            on_progress("layer2", step / NUM_STEPS)
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return protect


def load_counted(settings: WorkerSettings, folder: Path) -> Protector:
    """Leaves a file for each time that it loads."""
    (folder / uuid.uuid4().hex).touch()
    return load_stepping(settings, step_s=0.1)


def load_nothing(_: WorkerSettings) -> Protector:
    """As where weights are missing."""
    raise FileNotFoundError("no such weights")


def load_failing(_: WorkerSettings) -> Protector:
    """Loads, and protects no photo whatsoever."""

    def protect(*_: Any) -> SetResult:
        raise ZeroDivisionError("never works")

    return protect


def parts_seen(run: Callable[[Tally], object]) -> list[float]:
    """Photos' worth of work, more than none and less than one, that a display saw of a run."""
    tally, seen, end = Tally(), set[float](), threading.Event()

    def watch() -> None:
        while not end.wait(0.05):
            seen.add(tally.photos_done)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run(tally)
    finally:
        end.set()
        watching.join()
    return sorted(one for one in seen if 0 < one < 1)
