"""What a plan will cost, before it is run: photos, bytes, worker-hours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import RunConfig
from pipeline.plan import Plan


@dataclass(frozen=True)
class Estimate:
    """Expected work of a plan."""

    num_photos: int
    num_bytes: int
    """Encoded bytes to read, references included."""
    seconds_per_photo: float
    worker_hours: float
    basis: str
    """Where ``seconds_per_photo`` comes from, for a person."""


def estimate(
    plan: Plan, config: RunConfig, states: Mapping[str, Any], seconds_per_photo: float | None = None
) -> Estimate:
    """Estimates the work of a plan.

    Args:
        plan: The work.
        config: Its preset chooses the default.
        states: ``manifest.newest_state``; where rows of this method have seconds, their median
            is used.
        seconds_per_photo: Overrides both.
    """
    raise NotImplementedError
