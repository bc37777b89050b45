"""Photos whose content OUTPUT may hold already under another path: renamed, moved, copied.

Knows sizes and versions, which the catalog and the manifest have; a worker that reads the photo
says whether the content is really the same.
"""

import dataclasses
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from pipeline.catalog.output_keys import ending_of
from pipeline.catalog.photos import Catalog, side_by_side
from pipeline.config import FORMAT_OF_ENDING
from pipeline.errors import ConfigurationError, EnvironmentTrouble
from pipeline.output.manifest import SourceState
from pipeline.planning.decisions import DecisionRules
from pipeline.records import MISSING_VERSION, SourcePhoto, Twin
from pipeline.storage.spool import temporary_database
from pipeline.storage.store import Store
from pipeline.storage.uris import folder_and_name, root_of, split_uri

_MAX_TWINS = 16
"""Contents of the same size that a photo is compared with."""


class TwinsBySize:
    """What OUTPUT holds of other photos of the size of those to do, in their format.

    None of those that are done in this run too: their files may change meanwhile. And none where a
    person asked for the photo to be done again.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        """
        Args:
            sizes: Of the photos to do, in bytes.
        """
        self._sizes = np.unique(np.asarray(sizes, np.int64))
        self._database: sqlite3.Connection | None = None

    def add(
        self, states: Mapping[str, SourceState], busy: Collection[str], rules: DecisionRules
    ) -> None:
        """Takes decisions of which some may be on photos of these sizes.

        Args:
            busy: URIs of photos to do.
            rules: Say what counts as protected by the method of this run.
        """
        if not states or not len(self._sizes):
            return
        decided = [-1 if one.num_bytes is None else one.num_bytes for one in states.values()]
        fitting = np.isin(np.array(decided, np.int64), self._sizes)
        rows = []
        for (uri, state), fits in zip(states.items(), fitting, strict=True):
            if fits and uri not in busy and (twin := _twin(uri, state, rules)):
                rows.append((state.num_bytes, *dataclasses.astuple(twin)))
        if not rows:
            return
        if self._database is None:
            self._database = temporary_database()
            self._database.execute("CREATE TABLE twins (size INTEGER, uri, sha256, key, output)")
            self._database.execute("CREATE INDEX by_size ON twins (size)")
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO twins VALUES (?, ?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def of(self, photo: SourcePhoto, rules: DecisionRules) -> SourcePhoto:
        """The photo with its twins."""
        if self._database is None or photo.uri in rules.reprotect:
            return photo
        query = "SELECT uri, sha256, key, output FROM twins WHERE size = ?"
        rows = self._database.execute(query, (photo.size_bytes,)).fetchall()
        return _with_twins(photo, [Twin(*row) for row in rows])


def handed_on(
    photos: Iterable[SourcePhoto],
    states: Mapping[str, SourceState],
    catalog: Catalog,
    rules: DecisionRules,
) -> dict[str, str]:
    """Whose key a photo takes over: that of a photo of another INPUT which lay at the same place.

    So a volume under another mount point keeps its keys. Only of photos of the same version that
    are nowhere any more.

    Returns:
        The URI whose key it was, by the URI of the photo that takes it over.
    """
    holders = {
        state.output_key.casefold(): uri
        for uri, state in states.items()
        if state.output_key and root_of(uri, catalog.roots) is None
    }
    pairs = []
    for photo in photos:
        uri = holders.get(photo.output_key.casefold())
        if uri is None or photo.version == MISSING_VERSION or _has_key(states.get(photo.uri)):
            continue
        state = states[uri]
        if state.version == photo.version and rules.previous_sha256(state) is not None:
            pairs.append((photo.uri, uri))
    looks = _Looks()
    there = side_by_side(looks.is_there, [uri for _, uri in pairs])
    return {new: old for (new, old), is_there in zip(pairs, there, strict=True) if not is_there}


def _has_key(state: SourceState | None) -> bool:
    """Whether OUTPUT keeps a key for a photo; not where it was gone and has handed it on."""
    return state is not None and (state.status != "source_gone" or state.output_key is not None)


def _twin(uri: str, state: SourceState, rules: DecisionRules) -> Twin | None:
    sha256 = rules.previous_sha256(state)
    if sha256 is None or state.output_key is None or state.output_sha256 is None:
        return None
    return Twin(uri, sha256, state.output_key, state.output_sha256)


def _with_twins(photo: SourcePhoto, twins: Sequence[Twin]) -> SourcePhoto:
    """The photo with one twin for each content, first the one that has the photo's own key."""
    in_format = [twin for twin in twins if _format(twin.output_key) == _format(photo.output_key)]
    by_content: dict[str, Twin] = {}
    for twin in sorted(in_format, key=lambda t: (t.output_key != photo.output_key, t.output_key)):
        by_content.setdefault(twin.sha256, twin)
    chosen = sorted(by_content.values(), key=lambda twin: twin.sha256)[:_MAX_TWINS]
    return dataclasses.replace(photo, twins=tuple(chosen)) if chosen else photo


def _format(key: str) -> str:
    ending = ending_of(key)
    return FORMAT_OF_ENDING.get(ending, ending)


class _Looks:
    """Whether photos of other places are there; a place that does not answer is asked once."""

    def __init__(self) -> None:
        self._silent: set[tuple[str, str]] = set()

    def is_there(self, uri: str) -> bool:
        """False only where that is certain."""
        scheme, bucket, _ = split_uri(uri)
        if (scheme, bucket) in self._silent:
            return True
        folder, name = folder_and_name(uri)
        try:
            return Store(folder, retry_delays_s=()).exists(name)
        except (EnvironmentTrouble, ConfigurationError):
            self._silent.add((scheme, bucket))
            return True
