"""Earlier rows that hold on: for a photo that came back, or whose content is known already.

Reads the manifest; what it makes is for ``fold`` to write.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from pipeline.manifest_row import ManifestRow
from pipeline.output.manifest import newest_rows_of
from pipeline.reasons import ReasonCode
from pipeline.records import CommitRecord, SourcePhoto, StagedRow, UnchangedPhoto
from pipeline.storage.store import Store


def rows_of_unchanged(store: Store, records: Sequence[CommitRecord]) -> list[ManifestRow]:
    """Rows of photos whose content is the one decided on, under their new versions."""
    earlier = _standing_rows(
        store, {photo.source_uri for record in records for photo in record.unchanged}
    )
    return [
        _of_commit(record, _row_of(photo, record.identity, earlier.get(photo.source_uri)))
        for record in records
        for photo in record.unchanged
    ]


_OF_PHOTO = (
    "identity", "source_uri", "source_version", "source_bytes", "source_sha256",
    "set_key", "num_reference", "run_id", "attempt", "seconds", "gpu_seconds", "committed_at",
)  # fmt: skip
"""Columns that tell of this photo and its decision; the others, what was made of its content."""
COPIED_NOTE = "copied_from_same_content"


def described(store: Store, records: Sequence[CommitRecord]) -> list[CommitRecord]:
    """The commits, with the whole rows of photos whose protected file is a copy of another's."""
    twins = {row.same_as for record in records for row in record.rows if row.same_as is not None}
    earlier = _standing_rows(store, twins)
    return [
        dataclasses.replace(
            record,
            rows=[
                row if row.same_as is None else _described(row, earlier.get(row.same_as))
                for row in record.rows
            ],
        )
        for record in records
    ]


def _described(staged: StagedRow, earlier: ManifestRow | None) -> StagedRow:
    row = staged.row
    if earlier is None or (earlier.source_sha256, earlier.output_sha256) != (
        row.source_sha256,
        row.output_sha256,
    ):
        lost = str(ReasonCode.EARLIER_ROW_LOST)
        failed = dataclasses.replace(row, status="failed", reason=lost, output_sha256=None)
        return dataclasses.replace(staged, row=failed, staged_key=None)
    own = {name: getattr(row, name) for name in _OF_PHOTO}
    notes = [note for note in earlier.source_notes or () if note != COPIED_NOTE]
    whole = dataclasses.replace(earlier, **own, source_notes=[*notes, COPIED_NOTE])
    return dataclasses.replace(staged, row=whole)


def rows_of_returned(store: Store, photos: Iterable[SourcePhoto]) -> list[ManifestRow]:
    """Rows of photos that were gone and lie where they were, as they were."""
    back = [*photos]
    earlier = _standing_rows(store, {photo.uri for photo in back})
    rows = []
    for photo in back:
        row = earlier.get(photo.uri)
        known = UnchangedPhoto(photo.uri, photo.version, row.source_sha256 if row else None)
        rows.append(dataclasses.replace(_row_of(known, photo.identity, row), committed_at=None))
    return rows


def _standing_rows(store: Store, uris: Collection[str]) -> dict[str, ManifestRow]:
    """The newest decisions on what these photos hold; that one is gone is none."""
    return newest_rows_of(store, uris, ("deferred", "source_gone")) if uris else {}


def _row_of(photo: UnchangedPhoto, identity: str, earlier: ManifestRow | None) -> ManifestRow:
    if earlier is None or earlier.source_sha256 != photo.source_sha256:
        # Somebody deleted parts of the manifest: as for lost data, a person sees and retries it.
        earlier = ManifestRow(
            identity=identity,
            source_uri=photo.source_uri,
            source_version=photo.source_version,
            source_sha256=photo.source_sha256,
            status="failed",
            reason=str(ReasonCode.EARLIER_ROW_LOST),
        )
    return dataclasses.replace(earlier, source_version=photo.source_version)


def _of_commit(record: CommitRecord, row: ManifestRow) -> ManifestRow:
    return dataclasses.replace(
        row,
        set_key=record.set_key,
        run_id=record.run_id,
        attempt=record.attempt,
        committed_at=record.committed_at,
        seconds=record.seconds / record.num_photos,
        gpu_seconds=record.gpu_seconds / record.num_photos,
    )
