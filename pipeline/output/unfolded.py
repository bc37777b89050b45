"""Decisions that the manifest does not have yet: of a run at work, or of one that was stopped."""

from collections.abc import Iterator

from pipeline.output.ledger import Ledger
from pipeline.output.manifest_parts import parts_so_far
from pipeline.records import CommitRecord
from pipeline.storage.store import Store


def unfolded_records(store: Store, run_id: str) -> Iterator[CommitRecord]:
    """Commits of a run that the manifest does not have, streamed."""
    folded, _ = parts_so_far(store, run_id)
    ledger = Ledger(store, run_id)
    for name in ledger.commit_names():
        record = None if name in folded else ledger.read_commit(*name)
        if record is not None:
            yield record
