"""Photos whose content OUTPUT holds under another path: their protected file is copied.

Knows the ledger's keys and the store. Computes nothing.
"""

import dataclasses
from collections.abc import Sequence

from pipeline.catalog.output_keys import ending_of
from pipeline.output.ledger import Attempt, Ledger
from pipeline.records import PhotoSet, StagedRow, Twin, photo_row
from pipeline.storage.store import HashMismatch, Store
from pipeline.worker.set_inputs import WholePhoto


def stage_known(
    photos: Sequence[tuple[WholePhoto, Twin]],
    photo_set: PhotoSet,
    attempt: Attempt,
    ledger: Ledger,
    store: Store,
) -> tuple[list[StagedRow], list[WholePhoto]]:
    """Copies the protected files of photos with the same content.

    Returns:
        What is staged; and the photos whose twin's file is not there any more, which are to be
        computed.
    """
    rows, left = list[StagedRow](), list[WholePhoto]()
    for photo, twin in photos:
        key = photo.source.output_key
        name = f"{photo.index:03d}.{ending_of(key) or 'copy'}"
        staged = ledger.staged_key(photo_set.key, attempt.id, name)
        try:
            store.copy_published(twin.output_key, staged, twin.output_sha256)
        except (FileNotFoundError, HashMismatch):
            left.append(photo)
            continue
        row = dataclasses.replace(
            photo_row(photo.source, "protected", photo_set),
            source_sha256=photo.sha256,
            output_sha256=twin.output_sha256,
        )
        rows.append(StagedRow(row, key, staged, same_as=twin.uri))
    return rows, left
