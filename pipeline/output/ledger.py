"""Commits of photo sets, and the rule by which a set that ends processes is given up.

Knows the keys below ``runs/<id>/`` of one run. Knows nothing of how a set is computed.

A set of generation g is decided by the first record under ``commits/<key>.<g>.json``; the highest
generation is the truth. What becomes of attempts that decide nothing stands in ``attempts``.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator
from itertools import chain

from pipeline.clock import utc_now
from pipeline.errors import PipelineError
from pipeline.output.attempts import Attempt, Attempts, AttemptState
from pipeline.output.manifest_parts import parts_so_far
from pipeline.output.runs import check_run_id, run_key
from pipeline.reasons import Reason
from pipeline.records import CommitName, CommitRecord, PhotoSet, RunColumns, StagedRow, photo_row
from pipeline.storage.store import Store

__all__ = ["Attempt", "AttemptState", "Ledger"]

_log = logging.getLogger("dladiff.ledger")

QUARANTINE_ATTEMPT = "none"
"""Attempt named by a quarantine's record: it was decided without one."""


class Ledger:
    """The ledger of one run; cheap to make, safe to use from many processes at once."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        node: str | None = None,
        live_nodes: Callable[[], Collection[str]] = tuple,
        columns: RunColumns | None = None,
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            node: Name of this node that no other, and no earlier, node has, e.g. Ray's node id;
                None: host name and boot id.
            live_nodes: Says which other nodes live; asked only where a set was tried before.
            columns: Filled in where a row has null.
        """
        self._store, self._run_id = store, check_run_id(run_id)
        self._attempts = Attempts(store, run_id, node, live_nodes)
        self._columns = columns or RunColumns()

    def begin(
        self, photo_set: PhotoSet, max_crashed: int = 3, max_lost: int = 10
    ) -> Attempt | CommitRecord:
        """Opens an attempt, unless the set is decided or has ended too many processes.

        Args:
            max_crashed: Crashed attempts after which the set is quarantined.
            max_lost: The same for lost ones.

        Returns:
            The attempt to work under, or the commit that decides the set: an earlier one, or the
            quarantine written now.
        """
        self._attempts.close_pending()
        found = self.read_commit(photo_set.key, photo_set.generation)
        if found is not None:
            return found
        states = [
            self.state_of(attempt) for attempt in self.attempts(photo_set.key, photo_set.generation)
        ]
        limits: dict[AttemptState, int] = {"crashed": max_crashed, "lost": max_lost}
        for state, allowed in limits.items():
            if (count := states.count(state)) >= allowed:
                return self._quarantine(photo_set, Reason(f"{state}_{count}_times"))
        return self._attempts.open(photo_set, states.count("crashed") + states.count("lost"))

    def close(self, attempt: Attempt, cause: str) -> None:
        """Ends an attempt that the environment stopped: it will not count against the set.

        Its data stays until the run is finished: a commit whose answer was lost may refer to it.
        Raises nothing where the store itself is the trouble; the next ``begin`` makes up for it.

        Args:
            cause: ``EnvironmentTrouble.cause``; no text that could name a photo.
        """
        self._attempts.close(attempt, cause)

    def commit(self, record: CommitRecord) -> bool:
        """Decides a photo set, once and for all; its outputs must be staged before.

        Fills in what the rows lack: set, run, attempt, time and the run's columns. Staged data
        that no decision refers to is deleted: all of a loser's or of a set that is not done.

        Returns:
            Whether this record decides; if not, another attempt's did, see ``read_commit``.
        """
        record = self._completed(record)
        won = self._store.create_exclusive(
            self._commit_key(record.set_key, record.generation), record.to_bytes()
        )
        if not won:
            # The same attempt may have tried before and not heard that it won.
            found = self.read_commit(record.set_key, record.generation)
            won = found is not None and found.attempt == record.attempt
            record = found if won and found is not None else record
        if not won or record.outcome != "done":
            self.delete_data(record.set_key, record.attempt)
        return won

    def read_commit(self, set_key: str, generation: int = 0) -> CommitRecord | None:
        """The record that decides a set of this generation, None if it is not decided.

        Raises:
            PipelineError: If it was written by another version, or is damaged.
        """
        key = self._commit_key(set_key, generation)
        try:
            return CommitRecord.from_bytes(self._store.read(key))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise PipelineError(f"cannot read {self._store.uri_of(key)}: {error}") from None

    def commit_names(self) -> Iterator[CommitName]:
        """Set key and generation of every commit, streamed without reading them."""
        for info in self._store.list(self._key("commits/")):
            name = info.key.rpartition("/")[2].removesuffix(".json")
            set_key, _, generation = name.rpartition(".")
            if set_key and generation.isdigit():
                yield set_key, int(generation)

    def commits(self) -> Iterator[CommitRecord]:
        """Every commit of the run, streamed."""
        for set_key, generation in self.commit_names():
            found = self.read_commit(set_key, generation)
            if found is not None:
                yield found

    def decided_generations(self) -> dict[str, int]:
        """The highest decided generation of every set that the run has decided, by set key.

        The manifest knows of commits that ``dladiff gc`` has removed.
        """
        highest: dict[str, int] = {}
        folded, _ = parts_so_far(self._store, self._run_id)
        for set_key, generation in chain(folded, self.commit_names()):
            highest[set_key] = max(generation, highest.get(set_key, 0))
        return highest

    def attempts(self, set_key: str, generation: int = 0) -> list[Attempt]:
        """All attempts at a set, in the order of their start."""
        return self._attempts.of_set(set_key, generation)

    def state_of(self, attempt: Attempt) -> AttemptState:
        """What became of an attempt whose set is not decided; see ``attempts``."""
        return self._attempts.state_of(attempt)

    def staged_key(self, set_key: str, attempt: str, name: str) -> str:
        """Key for one output of an attempt; attempts never share keys.

        Args:
            attempt: ``Attempt.id``.
            name: One segment, e.g. ``0.png``.
        """
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"expected a plain file name, got {name!r}")
        return self._key(f"data/{set_key}/{attempt}/{name}")

    def delete_data(self, set_key: str, attempt: str) -> None:
        """Deletes all outputs that an attempt staged."""
        prefix = self._key(f"data/{set_key}/{attempt}/")
        self._store.delete(info.key for info in self._store.list(prefix))

    def delete_set(self, set_key: str) -> int:
        """Deletes all that the run holds of a photo set; says how many objects.

        Commits go last: one that the manifest does not have is what leads here.
        """
        num_deleted = 0
        for start in (f"data/{set_key}/", f"attempts/{set_key}.", f"commits/{set_key}."):
            keys = [info.key for info in self._store.list(self._key(start))]
            self._store.delete(keys)
            num_deleted += len(keys)
        return num_deleted

    def _quarantine(self, photo_set: PhotoSet, reason: Reason) -> CommitRecord:
        record = CommitRecord(
            set_key=photo_set.key,
            generation=photo_set.generation,
            identity=photo_set.identity,
            run_id=self._run_id,
            attempt=QUARANTINE_ATTEMPT,
            outcome="quarantined",
            rows=[
                StagedRow(photo_row(photo, "quarantined", photo_set, reason), photo.output_key)
                for photo in photo_set.photos
            ],
            reason=str(reason),
        )
        self.commit(record)
        found = self.read_commit(photo_set.key, photo_set.generation)
        if found is None:
            raise PipelineError("a commit vanished right after it was written")
        _log.warning("a photo set is quarantined: %s", found.reason)
        return found

    def _completed(self, record: CommitRecord) -> CommitRecord:
        committed_at = record.committed_at or utc_now()
        rows = []
        for staged in record.rows:
            row = dataclasses.replace(
                self._columns.fill(staged.row),
                set_key=record.set_key,
                run_id=self._run_id,
                attempt=record.attempt,
                committed_at=committed_at,
            )
            staged_key = staged.staged_key if record.outcome == "done" else None
            rows.append(dataclasses.replace(staged, row=row, staged_key=staged_key))
        return dataclasses.replace(
            record, rows=rows, run_id=self._run_id, committed_at=committed_at
        )

    def _key(self, name: str) -> str:
        return run_key(self._run_id, name)

    def _commit_key(self, set_key: str, generation: int) -> str:
        return self._key(f"commits/{set_key}.{generation}.json")
