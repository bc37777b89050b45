"""The manifest as a person asks about it: the newest whole row of every source, row by row.

Reads only. ``manifest.newest_state`` is the short form that planning needs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigurationError
from pipeline.manifest import SourceState, newest_state, read_manifest
from pipeline.records import MANIFEST_SCHEMA
from pipeline.storage import Store

_BATCH_ROWS = 1000
"""Rows that are Python objects at a time."""


def require_states(store: Store) -> dict[str, SourceState]:
    """``newest_state`` of an OUTPUT that has a manifest.

    Raises:
        ConfigurationError: If there is no OUTPUT here, or nothing was ever decided in it.
    """
    if not store.root_exists():
        raise ConfigurationError(f"there is no OUTPUT at {store.uri}")
    states = newest_state(store)
    if not states:
        raise ConfigurationError(
            f"{store.uri} holds no manifest rows: nothing was protected here, or a stopped run "
            "still has to be finished by `dladiff protect`"
        )
    return states


def newest_rows(store: Store, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The newest decision on every source, as rows; ``deferred`` rows decide nothing.

    Args:
        columns: Names to read, None for all.
    """
    needed = {"source_uri", "status", "committed_at", *(columns or MANIFEST_SCHEMA.names)}
    names = [name for name in MANIFEST_SCHEMA.names if name in needed]
    table = read_manifest(store, names)
    table = table.filter(pc.not_equal(table["status"], "deferred"))
    newest = {uri: index for index, uri in enumerate(table["source_uri"].to_pylist())}
    indices = pa.array(sorted(newest.values()), pa.int64())
    for batch in table.take(indices).to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


def rows_of_source(store: Store, source_uri: str) -> list[dict[str, Any]]:
    """Every row on one source, oldest first, deferred ones included."""
    table = read_manifest(store)
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["source_uri"], source_uri)).to_pylist()
    return rows
