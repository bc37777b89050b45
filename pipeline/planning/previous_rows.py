"""Photos whose file changed but perhaps not their content take their earlier decision along."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.manifest import read_manifest
from pipeline.records import PhotoSet, SourcePhoto
from pipeline.storage.store import Store


def with_previous_rows(photo_sets: Sequence[PhotoSet], store: Store) -> list[PhotoSet]:
    """The same sets; photos with a ``previous_sha256`` also get the row of that decision.

    Re-uploads and touched files change a source's version, not its content: the worker compares
    the hash and then repeats the row under the new version instead of protecting again.
    """
    wanted = {photo.uri for each in photo_sets for photo in each.photos if photo.previous_sha256}
    if not wanted:
        return list(photo_sets)
    table = read_manifest(store)
    table = table.filter(pc.is_in(table["source_uri"], value_set=_strings(wanted)))
    rows = {row["source_uri"]: row for row in table.to_pylist() if row["status"] != "deferred"}
    return [
        dataclasses.replace(each, photos=tuple(_with_row(photo, rows) for photo in each.photos))
        for each in photo_sets
    ]


def _with_row(photo: SourcePhoto, rows: dict[str, dict[str, Any]]) -> SourcePhoto:
    row = rows.get(photo.uri)
    if photo.previous_sha256 is None or row is None:
        return photo if row is not None else dataclasses.replace(photo, previous_sha256=None)
    return dataclasses.replace(photo, previous_row=json.dumps(row))


def _strings(values: set[str]) -> Any:
    return pa.array(sorted(values), pa.string())
