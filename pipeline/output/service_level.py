"""How OUTPUT stands while nothing runs: when a run last succeeded, since when uploads may wait.

One small object, replaced at the end of each run under OUTPUT's lock. Knows no names.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config import OperationSettings
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
    """Uploads before this are decided: when the last run listed INPUT, or the oldest upload that it
    left undecided."""
    shards: dict[str, float] = field(default_factory=dict)
    """The same by shard, of runs with ``operation.shard``; all of one count."""


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
    operation: OperationSettings,
) -> ServiceLevel:
    """Replaces the object at the end of a run.

    Args:
        listed_at: When the listing of INPUT began: of later uploads the run knew nothing.
        oldest_left: Upload time of the oldest photo that the run left undecided or unpublished;
            None: none is left, or its time is not known.
        num_left: Such photos.
        operation: Says whether the run was about all of INPUT.
    """
    before = read_service_level(store) or ServiceLevel(label)
    since = listed_at
    if num_left:  # without a time nothing is known to be better than before
        since = before.unprotected_since if oldest_left is None else min(listed_at, oldest_left)
    shards = dict[str, float]()
    if operation.increment:  # of what its catalog does not name it knows nothing
        since, shards = before.unprotected_since, before.shards
    elif operation.shard is not None:
        shards = _with_shard(before.shards, operation.shard, since)
        is_whole = len(shards) == _count_of(operation.shard)
        since = min(shards.values()) if is_whole else before.unprotected_since
    level = ServiceLevel(
        label=label,
        last_run_at=now,
        last_exit_code=exit_code,
        last_success_at=now if exit_code == 0 else before.last_success_at,
        unprotected_since=since,
        shards=shards,
    )
    store.write(_KEY, json.dumps(dataclasses.asdict(level)).encode())
    return level


def _count_of(shard: str) -> int:
    return int(shard.partition("/")[2])


def _with_shard(shards: Mapping[str, float], shard: str, since: float) -> dict[str, float]:
    """Other shards of the same count, and this one anew."""
    count = _count_of(shard)
    return {name: each for name, each in shards.items() if _count_of(name) == count} | {
        shard: since
    }
