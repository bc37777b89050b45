"""What runs decided that are not finished: their files may be served before their rows are there.

Reads only.
"""

from dataclasses import dataclass

from pipeline.output.gate import Gates
from pipeline.output.runs import unfinished_runs
from pipeline.output.unfolded import unfolded_records
from pipeline.storage.store import Store


@dataclass(frozen=True, slots=True)
class UnfinishedPhoto:
    """The decision of an unfinished run on one photo."""

    run_id: str
    source_version: str
    output_key: str
    output_sha256: str | None
    """Digest of the file that is to be served; None: the photo gets none."""
    is_held: bool
    """The file waits for the gate of its method."""

    def is_served(self, store: Store) -> bool:
        """Whether the file lies where it is to be served, whole."""
        try:
            return store.sha256_of(self.output_key, read=True) == self.output_sha256
        except FileNotFoundError:
            return False


def unfinished_photos(store: Store) -> dict[str, UnfinishedPhoto]:
    """Photos by ``source_uri``; of several runs the newest one's decision."""
    gates = Gates(store)
    return {
        staged.row.source_uri: UnfinishedPhoto(
            run_id=run_id,
            source_version=staged.row.source_version,
            output_key=staged.output_key,
            output_sha256=staged.row.output_sha256 if staged.staged_key else None,
            is_held=gates.must_wait(record),
        )
        for run_id in unfinished_runs(store)
        for record in unfolded_records(store, run_id)
        for staged in record.rows
    }
