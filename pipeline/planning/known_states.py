"""What OUTPUT remembers of source photos, by parts of the people, beside the photos of INPUT.

So that a plan joins the two a part at a time. Knows names and URIs; decides nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from pipeline.catalog.photos import Photos
from pipeline.output.manifest import SourceState, newest_of
from pipeline.storage.spool import NUM_PARTS, PeopleSpool, part_of

Decision = tuple[str, SourceState]
"""Source URI and a decision on it."""

_AT_A_TIME = 20_000


class KnownStates:
    """The newest decision on every source photo, many of them on disk."""

    def __init__(self, photos: Photos, folder_of: Callable[[str], str]) -> None:
        """Knows nothing yet.

        Args:
            photos: A decision lies in the part of its photo, whoever it was decided on for.
            folder_of: Folder below ``images/`` in which a person's new photos get their keys.
        """
        self._photos, self._folder_of = photos, folder_of
        self._decided, self._ahead = PeopleSpool[Decision](), PeopleSpool[Decision]()
        self.strays: dict[str, str] = {}
        """URIs by key, in small letters, of photos that OUTPUT serves from the folder of somebody
        who may be in another part: a catalog file had given the key, or the person has another
        name in this INPUT."""

    def add(self, decisions: Iterable[Decision], is_ahead: bool = False) -> None:
        """Takes decisions in any order.

        Args:
            is_ahead: Not in the manifest yet, and newer than what is.
        """
        rest = iter(decisions)
        spool = self._ahead if is_ahead else self._decided
        while batch := [*islice(rest, _AT_A_TIME)]:
            parts = self._photos.parts_of([uri for uri, _ in batch])
            for (uri, state), found in zip(batch, parts, strict=True):
                own = part_of(state.identity)
                part = own if found < 0 else found
                spool.add(part, (uri, state))
                self._note_stray(uri, state, part == own)

    def part(self, number: int) -> dict[str, SourceState]:
        """The newest decisions of one part, by source URI."""
        return newest_of(self._decided.part(number)) | dict(self._ahead.part(number))

    def parts(self) -> Iterator[Mapping[str, SourceState]]:
        """The states of all parts, one part after the other."""
        return map(self.part, range(NUM_PARTS))

    def __bool__(self) -> bool:
        return bool(len(self._decided) or len(self._ahead))

    def _note_stray(self, uri: str, state: SourceState, is_at_home: bool) -> None:
        if state.output_key is None:
            return
        folder = state.output_key.split("/", 2)[1]
        if not is_at_home or folder.casefold() != self._folder_of(state.identity).casefold():
            self.strays[state.output_key.casefold()] = uri
