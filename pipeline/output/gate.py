"""The gates of methods: OUTPUT publishes nothing of a method digest before its gate is open.

A gate is an object ``gates/<digest>.json``, written while OUTPUT's lock is held. Commits of a
closed one stay with their run, which is not finished, until the gate opens or another method goes
on. Knows nothing of how a method is judged; ``canary`` does.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clock import utc_now
from pipeline.errors import PipelineError
from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.output.ledger import Ledger
from pipeline.output.manifest import SourceState, read_manifest
from pipeline.output.runs import finish_run
from pipeline.output.unfolded import unfolded_records
from pipeline.records import CommitRecord
from pipeline.storage.store import Store


class Gates:
    """Which methods may publish, as OUTPUT says at the first question about each."""

    def __init__(self, store: Store) -> None:
        """Reads nothing yet."""
        self._store = store
        self._open: dict[str, bool] = {}

    def must_wait(self, record: CommitRecord) -> bool:
        """Whether a commit has images that must wait."""
        method = method_of(record)
        if method is None or not has_image(record):
            return False
        if method not in self._open:
            self._open[method] = is_open(self._store, method)
        return not self._open[method]


def is_open(store: Store, method_digest: str) -> bool:
    """Whether images of this method may be published.

    An OUTPUT that was begun before there were gates has open ones for all that it serves.
    """
    verdict = read_verdict(store, method_digest)
    if verdict is not None:
        return bool(verdict.get("open"))
    table = read_manifest(store, ["status", "method_digest"])
    served = pc.and_(
        pc.equal(table["method_digest"], method_digest),
        pc.is_in(table["status"], pa.array(sorted(PROTECTED_STATUSES))),
    )
    return bool(pc.any(served).as_py())


def read_verdict(store: Store, method_digest: str) -> dict[str, Any] | None:
    """What was last said of this method, see ``write_verdict``; None: nothing yet."""
    try:
        content = json.loads(store.read(_key(method_digest)))
    except FileNotFoundError:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        uri = store.uri_of(_key(method_digest))
        raise PipelineError(f"{uri} is damaged: delete it, and the next run judges again")
    return content


def write_verdict(
    store: Store, method_digest: str, *, open_: bool, why: str, figures: Mapping[str, Any]
) -> None:
    """Opens a gate, or leaves it closed; the last verdict holds.

    Args:
        why: For a person.
        figures: What was measured, JSON values.
    """
    verdict = {"open": open_, "why": why, "figures": dict(figures), "judged_at": utc_now()}
    store.write(_key(method_digest), json.dumps(verdict, sort_keys=True, indent=1).encode())


def method_of(record: CommitRecord) -> str | None:
    """Digest of the method that made a commit; None: its rows do not say."""
    return record.rows[0].row.method_digest if record.rows else None


def has_image(record: CommitRecord) -> bool:
    """Whether there is anything to publish of this commit."""
    return any(staged.staged_key is not None for staged in record.rows)


def waiting_records(store: Store, run_id: str) -> list[CommitRecord]:
    """Commits of a run that wait for a gate."""
    gates = Gates(store)
    return [record for record in unfolded_records(store, run_id) if gates.must_wait(record)]


def states_once_published(records: Iterable[CommitRecord]) -> dict[str, SourceState]:
    """What OUTPUT will remember of photos once these commits are published, by ``source_uri``."""
    return {
        staged.row.source_uri: SourceState(
            identity=staged.row.identity,
            version=staged.row.source_version,
            sha256=staged.row.source_sha256,
            method_digest=staged.row.method_digest,
            status=staged.row.status,
            reason=staged.row.reason,
            output_key=staged.output_key if staged.staged_key else None,
            output_sha256=staged.row.output_sha256,
            run_id=record.run_id,
            committed_at=record.committed_at,
            target_met=staged.row.target_met,
        )
        for record in records
        for staged in record.rows
    }


def give_up_waiting(
    store: Store, waiting: Iterable[CommitRecord], kept: Sequence[CommitRecord], run_id: str
) -> None:
    """Gives up commits that wait for a gate, since their photos are done again.

    Published later, their images would replace those of a newer decision.

    Args:
        waiting: All that waits.
        kept: What goes on waiting; runs that hold nothing else any more are finished.
        run_id: The run that does the photos again.
    """
    dropped = [record for record in waiting if record not in kept]
    for record in dropped:
        Ledger(store, record.run_id).delete_set(record.set_key)
    for emptied in runs_of(dropped) - runs_of(kept) - {run_id}:
        finish_run(store, emptied, {"finished_by": run_id, "gave_up_held_images": True})


def runs_of(records: Iterable[CommitRecord]) -> set[str]:
    """Ids of the runs that decided these."""
    return {record.run_id for record in records}


def _key(method_digest: str) -> str:
    return f"gates/{method_digest}.json"
