"""Attempts of a run at its photo sets, and what became of each that left no decision.

An attempt is recorded before work under ``attempts/<key>.<g>/<attempt>.json``; one that ends
without deciding for a reason outside the set leaves ``<attempt>.closed.json`` beside it. An attempt
with neither marker nor commit is

- *running*, if its process still lives on this machine and is not the one that asks;
- *crashed*, if it ran on the asker's node, or on one that is known to live: the set may be the
  reason, few are allowed;
- *lost* otherwise: its node went away, most likely for its own reasons, more are allowed.
"""

import dataclasses
import json
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.clock import utc_now
from pipeline.errors import EnvironmentTrouble
from pipeline.output.processes import ProcessIdentity, this_process
from pipeline.output.runs import run_key
from pipeline.records import PhotoSet
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.ledger")

AttemptState = Literal["closed", "running", "crashed", "lost"]

_RECORD, _CLOSED = ".json", ".closed.json"


@dataclass(frozen=True)
class Attempt:
    """One try of a photo set by one process."""

    set_key: str
    generation: int
    id: str
    node: str
    """Ray's node id, or host and boot where there is none."""
    process: ProcessIdentity
    started_at: str
    after_crashes: int = 0
    """Earlier attempts at the set whose process ended without a word: crashed or lost."""
    closed: str | None = None
    """Cause for which it ended without deciding, e.g. ``store_throttled``; None: it did not."""


class Attempts:
    """The attempts of one run, as seen from one node."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        node: str | None = None,
        live_nodes: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Reads and writes nothing yet; see ``Ledger`` for the arguments."""
        process = this_process()
        self._store, self._run_id = store, run_id
        self._node = node or f"{process.host}/{process.boot_id}"
        self._live_nodes = live_nodes
        self._to_close: list[tuple[Attempt, str]] = []
        self._closing = threading.Lock()
        """Two sets of a process may end at once."""

    def open(self, photo_set: PhotoSet, after_crashes: int = 0) -> Attempt:
        """Records that this process is about to work on a set."""
        attempt = Attempt(
            photo_set.key,
            photo_set.generation,
            uuid.uuid4().hex,
            self._node,
            this_process(),  # not that of the constructor: there may have been a fork
            utc_now(),
            after_crashes,
        )
        try:
            self._write(attempt, _RECORD, dataclasses.asdict(attempt))
        except EnvironmentTrouble as error:
            self._to_close.append((attempt, error.cause))  # it may have arrived all the same
            raise
        return attempt

    def close(self, attempt: Attempt, cause: str) -> None:
        """Marks an attempt as ended by the environment, if not now then in ``close_pending``."""
        self._to_close.append((attempt, cause))
        try:
            self.close_pending()
        except EnvironmentTrouble as error:
            _log.warning("an attempt could not be closed yet: %s", error.cause)

    def close_pending(self) -> None:
        """Writes the markers that an outage prevented.

        Raises:
            EnvironmentTrouble: If it still does.
        """
        with self._closing:
            while self._to_close:
                attempt, cause = self._to_close[0]  # another thread may append
                self._write(attempt, _CLOSED, {"closed": cause, "closed_at": utc_now()})
                self._to_close.pop(0)

    def of_set(self, set_key: str, generation: int) -> list[Attempt]:
        """All attempts at a set, in the order of their start."""
        records: dict[str, Attempt] = {}
        causes: dict[str, str] = {}
        for info in self._store.list(self._folder(set_key, generation)):
            name = info.key.rpartition("/")[2]
            content = json.loads(self._store.read(info.key))
            if name.endswith(_CLOSED):
                causes[name.removesuffix(_CLOSED)] = content["closed"]
            else:
                content["process"] = ProcessIdentity(**content["process"])
                records[name.removesuffix(_RECORD)] = Attempt(**content)
        found = [
            dataclasses.replace(attempt, closed=causes.get(attempt_id))
            for attempt_id, attempt in records.items()
        ]
        return sorted(found, key=lambda attempt: attempt.started_at)

    def state_of(self, attempt: Attempt) -> AttemptState:
        """What became of an attempt whose set is not decided; see the module's text."""
        if attempt.closed is not None:
            return "closed"
        is_own = attempt.process == this_process()
        if not is_own and attempt.process.is_gone() is False:
            return "running"
        node_lives = attempt.node == self._node or attempt.node in self._live_nodes()
        return "crashed" if node_lives else "lost"

    def _write(self, attempt: Attempt, ending: str, content: Mapping[str, Any]) -> None:
        key = self._folder(attempt.set_key, attempt.generation) + attempt.id + ending
        self._store.write(key, json.dumps(content, sort_keys=True).encode())

    def _folder(self, set_key: str, generation: int) -> str:
        return run_key(self._run_id, f"attempts/{set_key}.{generation}/")
