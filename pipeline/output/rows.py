"""Manifest rows before they are rows: what the steps fill in, and what a commit adds.

Knows the two extra fields of a row in a commit record. Knows no storage.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.records import MANIFEST_SCHEMA, PhotoSet, RowStatus, SourcePhoto, empty_row

STAGED_KEY = "staged_key"
"""Key below OUTPUT of the attempt's own copy of the protected photo; in commit records only."""
OUTPUT_KEY = "output_key"
"""Key below OUTPUT under which it will be served; in commit records only, see ``output_uri``."""

COMMIT_ROW_FIELDS = frozenset({*MANIFEST_SCHEMA.names, STAGED_KEY, OUTPUT_KEY})


def photo_row(
    photo: SourcePhoto,
    status: RowStatus,
    photo_set: PhotoSet | None = None,
    reason: str | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """A row of the manifest with the columns that the catalog knows, all others null.

    Args:
        photo_set: The set in which the photo was decided, None where none was needed.
        columns: Further values by column name, also ``staged_key`` and ``output_sha256``.

    Raises:
        ValueError: For a name that is no column.
    """
    row = empty_row() | {
        "identity": photo.identity,
        "source_uri": photo.uri,
        "source_version": photo.version,
        "source_bytes": photo.size_bytes,
        "status": status,
        "reason": reason,
        OUTPUT_KEY: photo.output_key,
    }
    if photo_set is not None:
        row |= {"set_key": photo_set.key, "num_reference": len(photo_set.references)}
    row |= columns
    check_fields(row)
    return row


def check_fields(row: Mapping[str, Any]) -> None:
    """Refuses a row with a field that is neither a column nor one of the two extra ones.

    Raises:
        ValueError: Naming the fields.
    """
    unknown = sorted(row.keys() - COMMIT_ROW_FIELDS)
    if unknown:
        raise ValueError(f"expected columns of MANIFEST_SCHEMA, got {', '.join(unknown)}")
