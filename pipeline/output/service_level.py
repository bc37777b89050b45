"""How OUTPUT stands while nothing runs: when a run last succeeded, since when uploads may wait.

One small object, replaced at the end of each run under OUTPUT's lock. Knows no names.
"""

import dataclasses
import json
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.storage.store import Store

_KEY = "service.json"


@dataclass(frozen=True)
class ServiceLevel:
    """Times are seconds since 1970 UTC by the driver's clock; 0: never."""

    label: str
    """``labelled.output_label`` of the last run."""
    last_run_at: float = 0.0
    """End of the last run that came to its end, well or not."""
    last_exit_code: int = -1
    last_success_at: float = 0.0
    """End of the last run with exit code 0."""
    unprotected_since: float = 0.0
    """Uploads before this are decided. Later than the newest upload, or than the oldest that a run
    left undecided."""


def read_service_level(store: Store) -> ServiceLevel | None:
    """What the last run left; None: no run has come to its end here.

    Raises:
        PipelineError: If the object is not ours.
    """
    try:
        return ServiceLevel(**json.loads(store.read(_KEY)))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError):
        raise PipelineError(
            f"{store.uri_of(_KEY)} is not of this version: was it edited?"
        ) from None


def record_run(
    store: Store,
    label: str,
    exit_code: int,
    now: float,
    listed_at: float,
    oldest_left: float | None,
    num_left: int,
) -> ServiceLevel:
    """Replaces the object at the end of a run.

    Args:
        listed_at: When the listing of INPUT began: of later uploads the run knew nothing.
        oldest_left: Upload time of the oldest photo that the run left undecided or unpublished;
            None: none is left, or its time is not known.
        num_left: Such photos.
    """
    before = read_service_level(store) or ServiceLevel(label)
    since = listed_at
    if num_left:  # without a time nothing is known to be better than before
        since = before.unprotected_since if oldest_left is None else min(listed_at, oldest_left)
    level = ServiceLevel(
        label=label,
        last_run_at=now,
        last_exit_code=exit_code,
        last_success_at=now if exit_code == 0 else before.last_success_at,
        unprotected_since=since,
    )
    store.write(_KEY, json.dumps(dataclasses.asdict(level)).encode())
    return level
