"""What the manifest says: every row, the newest row of each source, and its short form.

Reads only. Rows get there by ``fold``; how they become files stands in ``manifest_parts``.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError, PipelineError
from pipeline.manifest_row import MANIFEST_SCHEMA, NEVER_NULL, ManifestRow
from pipeline.output.manifest_parts import part_keys, read_parts
from pipeline.storage.store import Store

_BATCH_ROWS = 1000
"""Rows that are Python objects at a time."""
_STATE_ROWS = 20_000
"""The same of a few columns."""


_STATE_COLUMNS = [
    "identity", "source_uri", "source_version", "source_bytes", "source_sha256",
    "output_uri", "output_sha256",
    "status", "reason", "target_met", "method_digest", "run_id", "committed_at",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceState:
    """What OUTPUT remembers of a source photo: its newest decision."""

    identity: str
    version: str
    """Source version that was decided on."""
    sha256: str | None
    """Of the original, None where it was never read."""
    method_digest: str | None
    status: str
    reason: str | None
    output_key: str | None
    """Key below OUTPUT of the protected photo, None if there is none."""
    output_sha256: str | None
    run_id: str
    committed_at: str
    target_met: bool | None = None
    """See ``ManifestRow``; None also of a photo that is gone."""
    num_bytes: int | None = None
    """Size of the original; None: not known."""

    def __reduce__(self) -> tuple[Any, ...]:
        """In half the time of a dataclass's own way: plans of millions are pickled."""
        return SourceState, _STATE_VALUES(self)


_STATE_VALUES = attrgetter(*(each.name for each in dataclasses.fields(SourceState)))


def read_manifest(store: Store, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of all runs, oldest decision first, with ``output_uri`` below this store's root.

    Args:
        columns: Names to read, None for all.

    Raises:
        PipelineError: If a part was written by a newer version.
    """
    columns = MANIFEST_SCHEMA.names if columns is None else columns
    tables = [*manifest_tables(store, columns)]
    if not tables:
        return pa.schema([MANIFEST_SCHEMA.field(name) for name in columns]).empty_table()
    table = pa.concat_tables(tables)
    return table.sort_by("committed_at") if "committed_at" in columns else table


def manifest_tables(store: Store, columns: Sequence[str]) -> Iterator[pa.Table]:
    """All rows of all runs, a part of the manifest at a time; see ``read_manifest``."""
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    return read_parts(store, part_keys(store), schema)


def newest_state(
    store: Store, takes: Callable[[str], bool] | None = None
) -> dict[str, SourceState]:
    """The newest decision on every source photo, by ``source_uri``.

    ``deferred`` rows decide nothing and never hide a decision.

    Args:
        takes: Says of an identity whether its photos are wanted; None: all of them. Memory and
            time are then those of the people wanted, beside one look at each part.
    """
    return newest_of(decisions(store, takes))


def decisions(
    store: Store,
    takes: Callable[[str], bool] | None = None,
    sources: Collection[str] | None = None,
) -> Iterator[tuple[str, SourceState]]:
    """Every decision in the manifest with its ``source_uri``, a part at a time.

    Args:
        takes: As for ``newest_state``.
        sources: URIs whose decisions are wanted; None: all.
    """
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in _STATE_COLUMNS])
    root = store.uri.rstrip("/") + "/"
    for table in read_parts(store, part_keys(store), schema, takes):
        table = table.filter(pc.not_equal(table["status"], "deferred"))
        if sources is not None:
            table = table.filter(_is_one_of(table["source_uri"], sources))
        for batch in table.to_batches(_STATE_ROWS):
            # By columns: dictionaries of each row would take twice the time.
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield values[1], _state(values, root)


def newest_of(decisions: Iterable[tuple[str, SourceState]]) -> dict[str, SourceState]:
    """The newest of some decisions by ``source_uri``; of equally old ones the last."""
    states: dict[str, SourceState] = {}
    for uri, state in decisions:
        known = states.get(uri)
        if known is not None:
            if state.committed_at < known.committed_at:
                continue
            if state.num_bytes is None:  # as older rows of gone photos
                state = dataclasses.replace(state, num_bytes=known.num_bytes)
        states[uri] = state
    return states


def decided_sources(store: Store, takes: Callable[[str], bool] | None = None) -> frozenset[str]:
    """URIs of all source photos that have a decision; none where there is no OUTPUT yet.

    Args:
        takes: As for ``newest_state``.
    """
    if not store.root_exists():
        return frozenset()
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in ("source_uri", "status")])
    decided = set[str]()
    for table in read_parts(store, part_keys(store), schema, takes):
        decided.update(table.filter(pc.not_equal(table["status"], "deferred"))[0].to_pylist())
    return frozenset(decided)


def find_sources(
    store: Store, uris: Collection[str], ending: str, output_uris: Collection[str]
) -> frozenset[str]:
    """URIs of decided sources that somebody may mean, a part at a time.

    Args:
        uris: Of sources.
        ending: With which the URI of a source ends.
        output_uris: Of protected files; some decision on the source has made one of them.
    """
    names = ("source_uri", "output_uri", "status")
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in names])
    found = set[str]()
    for table in read_parts(store, part_keys(store), schema):
        table = table.filter(pc.not_equal(table["status"], "deferred"))
        fits = pc.or_(
            pc.or_(
                _is_one_of(table["source_uri"], uris), pc.ends_with(table["source_uri"], ending)
            ),
            _is_one_of(table["output_uri"], output_uris),
        )
        found.update(table.filter(fits)["source_uri"].to_pylist())
    return frozenset(found)


def _is_one_of(column: pa.ChunkedArray, texts: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(sorted(texts), pa.string()))


def _state(values: Sequence[Any], images_root: str) -> SourceState:
    """Of a row's values in the order of ``_STATE_COLUMNS``."""
    (identity, _, version, num_bytes, sha256, uri, output_sha256) = values[:7]
    (status, reason, target_met, method_digest, run_id, committed_at) = values[7:]
    return SourceState(
        identity=intern(identity),
        version=version,
        sha256=sha256,
        method_digest=_intern(method_digest),
        status=intern(status),
        reason=_intern(reason),
        output_key=uri[len(images_root) :] if uri and uri.startswith(images_root) else None,
        output_sha256=output_sha256,
        run_id=intern(run_id),
        committed_at=committed_at,
        target_met=target_met,
        num_bytes=num_bytes,
    )


def _intern(text: str | None) -> str | None:
    """Millions of states share few such texts."""
    return None if text is None else intern(text)


def require_output(store: Store) -> None:
    """Refuses a place where nothing was ever protected.

    Raises:
        ConfigurationError: If there is no OUTPUT here.
    """
    if not store.root_exists():
        raise ConfigurationError(f"there is no OUTPUT at {store.uri}")


def require_states(store: Store) -> dict[str, SourceState]:
    """``newest_state`` of an OUTPUT that has a manifest.

    Raises:
        ConfigurationError: If there is no OUTPUT here, or nothing was ever decided in it.
    """
    require_output(store)
    states = newest_state(store)
    if not states:
        raise ConfigurationError(
            f"{store.uri} holds no manifest rows: nothing was protected here, or a stopped run "
            "still has to be finished by `dladiff protect`"
        )
    return states


def newest_rows(
    store: Store,
    columns: Sequence[str] | None = None,
    leaving_out: Collection[str] = ("deferred",),
) -> Iterator[ManifestRow]:
    """The newest decision on every source, as rows; ``deferred`` rows decide nothing.

    Args:
        columns: Names to read, None for all; in the rows all others are null.
        leaving_out: Statuses whose rows are passed over.
    """
    needed = {*NEVER_NULL, "committed_at", *(columns or MANIFEST_SCHEMA.names)}
    names = [name for name in MANIFEST_SCHEMA.names if name in needed]
    for table in newest_tables(store, names, leaving_out):
        for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
            yield from map(ManifestRow.from_columns, batch.to_pylist())


def newest_tables(
    store: Store, columns: Sequence[str], leaving_out: Collection[str] = ("deferred",)
) -> Iterator[pa.Table]:
    """The newest decision on every source, a part of the manifest at a time.

    Of all rows only a hash, a time and a mark are held together, 33 bytes each.

    Args:
        columns: Names to read.
        leaving_out: As for ``newest_rows``.

    Raises:
        PipelineError: A part was rewritten in between.
    """
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    keys = [*part_keys(store)]
    marks = _newest_of_parts(store, keys, leaving_out)
    wanted = [(key, newest) for key, newest in zip(keys, marks, strict=True) if newest.any()]
    tables = read_parts(store, (key for key, _ in wanted), schema)
    for table, (_, newest) in zip(tables, wanted, strict=True):
        if len(table) != len(newest):  # by `dladiff forget`
            raise PipelineError("OUTPUT was changed while it was read: run the command again")
        yield table.filter(pa.array(newest))


def _newest_of_parts(
    store: Store, keys: Sequence[str], leaving_out: Collection[str]
) -> list[NDArray[np.bool_]]:
    """For each part which of its rows are the newest of their source; of equally old ones the
    last."""
    names = ("source_uri", "status", "committed_at")
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in names])
    ids, times = list[NDArray[np.uint64]](), list[NDArray[np.int64]]()
    marks = list[NDArray[np.bool_]]()
    for table in read_parts(store, keys, schema):
        ids.append(_ids_of(table["source_uri"].to_pylist()))
        when = pc.cast(table["committed_at"], pa.timestamp("us", "UTC"))
        times.append(pc.fill_null(when.cast(pa.int64()), 0).to_numpy())
        is_out = pc.is_in(table["status"], value_set=pa.array(sorted(leaving_out), pa.string()))
        marks.append(pc.invert(is_out).to_numpy())
    if not keys:
        return []
    lengths = [len(one) for one in marks]
    all_ids, is_in = np.concatenate(ids), np.concatenate(marks)
    order = np.lexsort((np.concatenate(times), is_in, all_ids[:, 0], all_ids[:, 1]))
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (all_ids[order[1:]] != all_ids[order[:-1]]).any(axis=1)
    newest = np.zeros(len(order), bool)
    newest[order[is_last]] = True
    return np.split(newest & is_in, np.cumsum(lengths)[:-1])


def _ids_of(uris: Iterable[str]) -> NDArray[np.uint64]:
    """128 bits of a hash of each, as two numbers: two of 10^12 sources never share them."""
    digests = (
        blake2b(uri.encode(errors="surrogateescape"), digest_size=16).digest() for uri in uris
    )
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def newest_rows_of(
    store: Store, uris: Collection[str], leaving_out: Collection[str] = ("deferred",)
) -> dict[str, ManifestRow]:
    """The newest decision on each of these sources, by URI; as ``newest_rows``."""
    rows = (row for row in _rows_of_sources(store, uris) if row.status not in leaving_out)
    return {row.source_uri: row for row in rows}


def rows_of_source(store: Store, source_uri: str) -> list[ManifestRow]:
    """Every row on one source, oldest first, deferred ones included."""
    return _rows_of_sources(store, (source_uri,))


def _rows_of_sources(store: Store, uris: Collection[str]) -> list[ManifestRow]:
    """Their rows, oldest first; the others of a part are let go before the next part is read."""
    tables = []
    for table in read_parts(store, part_keys(store), MANIFEST_SCHEMA):
        tables.append(table.filter(_is_one_of(table["source_uri"], uris)))
    if not tables:
        return []
    rows = pa.concat_tables(tables).sort_by("committed_at").to_pylist()
    return [ManifestRow.from_columns(row) for row in rows]
