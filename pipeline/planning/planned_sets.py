"""The photo sets of a plan in their order of work, as many as there are: they lie on disk.

Which set comes first, and which are decided, SQLite knows; a set itself is read when its turn
comes. Knows nothing of how sets are formed or done.
"""

import pickle
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from pipeline.records import PhotoSet
from pipeline.storage.spool import temporary_database

_FETCHED = 500
"""Sets that are Python objects at a time where somebody goes through them all."""


class SetTotals(NamedTuple):
    """What a plan's sets come to."""

    num_photos: int
    num_references: int
    num_bytes: int
    """Encoded, references included."""
    photo_bytes: int
    """Bytes of the photos alone."""
    num_identities: int
    oldest_upload_s: float | None
    """Unix time; None: no store says when a photo was written."""


class PlannedSets(Sequence[PhotoSet]):
    """Sets in the order in which a run takes them: newest uploads first, every person in turn.

    Rounds: each takes the newest set left of every person. So a person with thousands of photos
    delays another one by a set, and an upload of today is not behind a backlog of years. Sets of
    equal age stand in order of their keys, which is random to a person and the same in every run.
    Keys, bytes and digests of a set are the same at any place.
    """

    def __init__(self, photo_sets: Iterable[PhotoSet] = ()) -> None:
        """
        Args:
            photo_sets: In any order.
        """
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE sets (id INTEGER PRIMARY KEY, key TEXT, round INTEGER, newest REAL, "
            "oldest REAL, num_photos INTEGER, num_references INTEGER, num_bytes INTEGER, "
            "photo_bytes INTEGER, content BLOB)"
        )
        self._database.execute(
            "CREATE TABLE places (place INTEGER PRIMARY KEY, id INTEGER, key TEXT, "
            "decided INTEGER DEFAULT 0)"
        )
        self._start, self._stop = 0, 0
        self.add(photo_sets)
        self.put_in_order()

    def add(self, photo_sets: Iterable[PhotoSet]) -> None:
        """Takes all sets of some people; then ``put_in_order``."""
        rounds = Counter[str]()
        rows = []
        for each in sorted(photo_sets, key=lambda one: (-_newest_upload(one), one.key)):
            content = zlib.compress(pickle.dumps(each, 5), 1)
            own = sum(photo.size_bytes for photo in each.photos)
            others = sum(photo.size_bytes for photo in each.references)
            uploads = [photo.modified_s for photo in each.photos if photo.modified_s]
            rows.append(
                (
                    *(each.key, rounds[each.identity], _newest_upload(each)),
                    *(min(uploads, default=None), len(each.photos), len(each.references)),
                    *(own + others, own, content),
                )
            )
            rounds[each.identity] += 1
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO sets VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
        )
        self._database.execute("COMMIT")

    def put_in_order(self) -> None:
        """Gives all sets their places, from 1."""
        self._database.execute("DELETE FROM places")
        self._database.execute(
            "INSERT INTO places (id, key) SELECT id, key FROM sets ORDER BY round, newest DESC, key"
        )
        self._database.execute("CREATE UNIQUE INDEX IF NOT EXISTS by_key ON places (key)")
        ((self._stop,),) = self._database.execute("SELECT COUNT(*) FROM places")

    def totals(self) -> SetTotals:
        """Sums over these sets; a person's first set is of round 0."""
        ((photos, references, num_bytes, own, people, oldest),) = self._database.execute(
            "SELECT TOTAL(num_photos), TOTAL(num_references), TOTAL(num_bytes), "
            "TOTAL(photo_bytes), TOTAL(round = 0), MIN(oldest) "
            "FROM places JOIN sets USING (id) WHERE place > ? AND place <= ?",
            (self._start, self._stop),
        )
        return SetTotals(
            int(photos), int(references), int(num_bytes), int(own), int(people), oldest
        )

    def window(self, size: int, after: int = 0) -> tuple[list[PhotoSet], int]:
        """The next sets that are not decided, at most ``size``.

        Args:
            after: The place that the last window ended at; 0: from the first set on.

        Returns:
            The sets, and the place that they end at.
        """
        rows = self._database.execute(
            "SELECT place, content FROM places JOIN sets USING (id) "
            "WHERE place > ? AND place <= ? AND NOT decided ORDER BY place LIMIT ?",
            (max(after, self._start), self._stop, size),
        ).fetchall()
        return [_set_of(content) for _, content in rows], rows[-1][0] if rows else after

    def undecided(self) -> Iterator[PhotoSet]:
        """All sets that are not decided, in order."""
        after = 0
        while True:
            photo_sets, after = self.window(_FETCHED, after)
            if not photo_sets:
                return
            yield from photo_sets

    def num_undecided(self) -> tuple[int, int]:
        """Sets, and photos in them, that are not decided."""
        ((sets, photos),) = self._database.execute(
            "SELECT COUNT(*), TOTAL(num_photos) FROM places JOIN sets USING (id) "
            "WHERE place > ? AND place <= ? AND NOT decided",
            (self._start, self._stop),
        )
        return sets, int(photos)

    def oldest_undecided_upload(self) -> float | None:
        """Unix time; None: all are decided, or no store says it."""
        ((oldest,),) = self._database.execute(
            "SELECT MIN(oldest) FROM places JOIN sets USING (id) "
            "WHERE place > ? AND place <= ? AND NOT decided",
            (self._start, self._stop),
        )
        return oldest if oldest is None else float(oldest)

    def find(self, key: str) -> PhotoSet | None:
        """The set of a key, if it is one of these and not decided."""
        rows = self._database.execute(
            "SELECT content FROM places JOIN sets USING (id) "
            "WHERE places.key = ? AND place > ? AND place <= ? AND NOT decided",
            (key, self._start, self._stop),
        ).fetchall()
        return _set_of(rows[0][0]) if rows else None

    def decide(self, key: str) -> None:
        """Notes that a set is decided."""
        self._database.execute("UPDATE places SET decided = 1 WHERE key = ?", (key,))

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[PhotoSet]:
        for start in range(self._start, self._stop, _FETCHED):
            yield from self._between(start, min(start + _FETCHED, self._stop))

    @overload
    def __getitem__(self, index: int) -> PhotoSet: ...

    @overload
    def __getitem__(self, index: slice) -> "PlannedSets": ...

    def __getitem__(self, index: int | slice) -> "PhotoSet | PlannedSets":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("expected neighbouring sets, got a step")
            part = object.__new__(PlannedSets)
            part._database = self._database
            part._start, part._stop = self._start + start, self._start + max(start, stop)
            return part
        place = range(self._start, self._stop)[index]
        return self._between(place, place + 1)[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PlannedSets of {len(self)}"

    def _between(self, start: int, stop: int) -> list[PhotoSet]:
        rows = self._database.execute(
            "SELECT content FROM places JOIN sets USING (id) "
            "WHERE place > ? AND place <= ? ORDER BY place",
            (start, stop),
        )
        return [_set_of(content) for (content,) in rows.fetchall()]


def _set_of(content: bytes) -> PhotoSet:
    photo_set: PhotoSet = pickle.loads(zlib.decompress(content))
    return photo_set


def _newest_upload(photo_set: PhotoSet) -> float:
    """Unix time; photos whose store says nothing count as old."""
    return max((photo.modified_s or 0.0 for photo in photo_set.photos), default=0.0)
