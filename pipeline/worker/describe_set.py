"""What became of photos -> staged files and the rows of a commit.

Knows the ledger's keys and the manifest's columns. Knows no models.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

from dladiff.config import MethodSettings
from pipeline.images.files import encode_png
from pipeline.manifest_row import RowStatus
from pipeline.output.ledger import Attempt, Ledger
from pipeline.reasons import Reason
from pipeline.records import PhotoSet, StagedRow, photo_row
from pipeline.storage.store import Store
from pipeline.worker.compute_set import ComputedGroup, ComputedPhoto
from pipeline.worker.result_rows import result_row
from pipeline.worker.set_inputs import RefusedPhoto, WholePhoto

_ENCODERS = 4
"""Threads that encode and write protected photos of a set; both mostly wait or leave the GIL."""


def stage_group(
    group: ComputedGroup,
    photo_set: PhotoSet,
    attempt: Attempt,
    ledger: Ledger,
    store: Store,
    method: MethodSettings,
) -> list[StagedRow]:
    """Encodes and stages the protected photos of a group side by side, and describes each."""

    def staged(computed: ComputedPhoto) -> StagedRow:
        photo, pixels = computed.photo, computed.decoded
        row = result_row(photo_set, photo, pixels, computed.result, group.result, method)
        if computed.result.image is None:
            return StagedRow(row, photo.source.output_key)
        kept = pixels.copyright if method.keep_metadata == "copyright" else None
        content = encode_png(computed.result.image, kept)
        key = ledger.staged_key(photo_set.key, attempt.id, f"{photo.index:03d}.png")
        store.write(key, content)
        row = replace(row, output_sha256=sha256(content).hexdigest())
        return StagedRow(row, photo.source.output_key, key)

    with ThreadPoolExecutor(_ENCODERS) as pool:
        return list(pool.map(staged, group.photos))


def refused_rows(photo_set: PhotoSet, photos: Sequence[RefusedPhoto]) -> list[StagedRow]:
    """Rows of photos that could not be worked on."""
    return [_row(photo_set, photo, "skipped", photo.reason) for photo in photos]


def failed_rows(
    photo_set: PhotoSet,
    photos: Sequence[WholePhoto],
    refused: Sequence[RefusedPhoto],
    reason: Reason,
) -> list[StagedRow]:
    """Rows of the photos whose set failed, without those that were refused for themselves."""
    skipped = {photo.source.uri for photo in refused}
    whole = [photo for photo in photos if photo.source.uri not in skipped]
    return [_row(photo_set, photo, "failed", reason) for photo in whole]


def in_plan_order(photo_set: PhotoSet, rows: Sequence[StagedRow]) -> list[StagedRow]:
    """Rows sorted as the photos of the set."""
    places = {photo.uri: place for place, photo in enumerate(photo_set.photos)}
    return sorted(rows, key=lambda staged: places[staged.row.source_uri])


def _row(
    photo_set: PhotoSet, photo: WholePhoto | RefusedPhoto, status: RowStatus, reason: Reason
) -> StagedRow:
    row = photo_row(photo.source, status, photo_set, reason)
    return StagedRow(replace(row, source_sha256=photo.sha256), photo.source.output_key)
