"""Seconds a photo takes on this machine: some of a plan's photos, protected for the clock alone.

The real worker computes them into a folder that is deleted. Knows nothing of prices or estimates.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.config import RunConfig
from pipeline.errors import ConfigurationError
from pipeline.planning.plan import Plan
from pipeline.records import PhotoSet
from pipeline.worker.code_digest import code_digest
from pipeline.worker.protect_photos import PhotoSetWorker
from pipeline.worker.protector import Protector, load_protector
from pipeline.worker.read_photos import read_photo_set
from pipeline.worker.settings import WorkerSettings


@dataclass(frozen=True)
class Calibration:
    """What was measured."""

    seconds_per_photo: float
    """Seconds that one worker takes, models loaded, photos read."""
    num_photos: int
    device: str


def calibrate(
    plan: Plan,
    config: RunConfig,
    input_roots: Sequence[str],
    num_photos: int,
    device: str,
    load: Callable[[WorkerSettings], Protector] = load_protector,
) -> Calibration | None:
    """Protects photos from all over a plan and forgets them; None: the plan is empty.

    Args:
        input_roots: ``Catalog.roots``.
        num_photos: As many, or all of a smaller plan.
        device: ``cpu`` or ``cuda``.
        load: Loads what computes a set.

    Raises:
        ConfigurationError: No photo of the sample could be worked on.
        ModelError: Weights are missing or damaged.
    """
    sample = list(sample_sets(plan.photo_sets, plan.totals.num_photos, num_photos))
    if not sample:
        return None
    with tempfile.TemporaryDirectory(prefix="dladiff-calibrate-") as folder:
        settings = WorkerSettings(
            output_uri=folder,
            run_id="calibration",
            config=config,
            method_digest="",
            models_digest="",
            code_digest=code_digest(),
            device=device,
            input_roots=tuple(input_roots),
        )
        worker = PhotoSetWorker(settings, load=load)
        seconds, done = 0.0, 0
        for photo_set in sample:
            reads = read_photo_set(photo_set, config.operation.max_photo_bytes, input_roots)
            began = time.monotonic()
            outcome = worker(photo_set, reads)
            if {"deferred", "failed"}.isdisjoint(outcome.statuses):
                seconds += time.monotonic() - began
                done += len(photo_set.photos)
    if not done:
        raise ConfigurationError(
            "--calibrate: none of the sampled photos could be worked on: `dladiff check` says more"
        )
    return Calibration(seconds / done, done, device)


def sample_sets(
    photo_sets: Sequence[PhotoSet], num_planned: int, num_photos: int
) -> Iterator[PhotoSet]:
    """Sets at equal distances in the plan, the last one cut so that there are ``num_photos``.

    Args:
        num_planned: Photos in all of these sets.
    """
    left, mean = min(num_photos, num_planned), num_planned / max(1, len(photo_sets))
    wanted = max(1, min(len(photo_sets), round(num_photos / max(1.0, mean))))
    first = [len(photo_sets) * place // wanted for place in range(wanted)]
    others = [place for place in range(len(photo_sets)) if place not in set(first)]
    for place in [*first, *others]:
        if left <= 0:
            return
        chosen = photo_sets[place]
        yield replace(chosen, photos=chosen.photos[:left])
        left -= len(chosen.photos)
