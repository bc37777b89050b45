"""Records of more people than fit into memory, kept on disk and read back some people at a time.

A temporary database of SQLite: no name of it is left in the file system, so nothing of it outlives
the process. Knows people by name. Knows nothing of photos or plans.
"""

import pickle
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Generic, TypeVar

NUM_PARTS = 256
"""Parts of the people. Of ten million photos a part holds forty thousand."""
_IN_MEMORY = 50_000
"""Records that wait in memory: fewer than these never touch the disk."""

Record = TypeVar("Record")


@lru_cache(maxsize=1 << 14)
def part_of(identity: str) -> int:
    """The part that a person belongs to, 0..``NUM_PARTS`` - 1, the same everywhere.

    Names that differ in case alone go together: their output keys must be told apart.
    """
    digest = sha256(identity.casefold().encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[8:16]) % NUM_PARTS  # other bytes than those of ``--shard``


def temporary_database() -> sqlite3.Connection:
    """A database that spills to the folder for temporary files and ends with its connection."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536"):
        database.execute(f"PRAGMA {pragma}")
    return database


class PeopleSpool(Generic[Record]):
    """Records by parts of the people; each is pickled, by this process for itself."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._waiting: defaultdict[int, list[Record]] = defaultdict(list)
        self._num_waiting = self._num_spilled = 0
        self._database: sqlite3.Connection | None = None

    def __len__(self) -> int:
        return self._num_spilled + self._num_waiting

    def add(self, part: int, record: Record) -> None:
        """Takes a record of somebody in a part."""
        self._waiting[part].append(record)
        self._num_waiting += 1
        if self._num_waiting >= _IN_MEMORY:
            self._spill()

    def part(self, number: int) -> list[Record]:
        """All records of a part, in the order in which they came."""
        return [*self._spilled(number), *self._waiting.get(number, ())]

    def __iter__(self) -> Iterator[Record]:
        """All records, part by part."""
        for number in range(NUM_PARTS):
            yield from self.part(number)

    def _spilled(self, number: int) -> Iterator[Record]:
        if self._database is None:
            return
        query = "SELECT records FROM spool WHERE part = ? ORDER BY rowid"
        for (records,) in self._database.execute(query, (number,)).fetchall():
            yield from pickle.loads(records)

    def _spill(self) -> None:
        if self._database is None:
            self._database = temporary_database()
            self._database.execute("CREATE TABLE spool (part INTEGER, records BLOB)")
            self._database.execute("CREATE INDEX by_part ON spool (part)")
        rows = ((part, pickle.dumps(records, 5)) for part, records in self._waiting.items())
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO spool VALUES (?, ?)", rows)
        self._database.execute("COMMIT")
        self._num_spilled += self._num_waiting
        self._num_waiting = 0
        self._waiting.clear()
