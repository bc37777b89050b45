"""What became of photos -> staged files and the rows of a commit.

Knows the ledger's keys and the manifest's columns. Knows no models.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256

from dladiff.config import MethodSettings
from dladiff.image_values import Image
from pipeline.images.coding import Coding
from pipeline.manifest_row import ManifestRow, RowStatus
from pipeline.output.ledger import Attempt, Ledger
from pipeline.reasons import Reason
from pipeline.records import PhotoSet, StagedRow, photo_row
from pipeline.storage.store import Store
from pipeline.worker.compute_set import ComputedGroup, ComputedPhoto
from pipeline.worker.result_rows import result_row
from pipeline.worker.set_inputs import RefusedPhoto, WholePhoto

_ENCODERS = 4
"""Threads that encode and write protected photos of a set; both mostly wait or leave the GIL."""


@dataclass(frozen=True)
class UnstagedPhoto:
    """A photo's row, and what is to be written of it; its original's pixels are gone."""

    row: ManifestRow
    output_key: str
    file_name: str
    image: Image | None
    """None: nothing is written."""
    copyright: str | None
    coding: Coding


def describe_group(
    group: ComputedGroup, photo_set: PhotoSet, method: MethodSettings
) -> list[UnstagedPhoto]:
    """The rows of a group's photos, with the pixels that are to be written."""

    def described(computed: ComputedPhoto) -> UnstagedPhoto:
        photo, pixels, result = computed.photo, computed.decoded, computed.result
        return UnstagedPhoto(
            row=result_row(
                photo_set, photo, pixels, result, group.result, method, computed.coding_notes
            ),
            output_key=photo.source.output_key,
            file_name=f"{photo.index:03d}.{computed.coding.file_format.lower()}",
            image=result.image,
            copyright=pixels.copyright if method.keep_metadata == "copyright" else None,
            coding=computed.coding,
        )

    return [described(computed) for computed in group.photos]


def stage_photos(
    photos: Sequence[UnstagedPhoto],
    photo_set: PhotoSet,
    attempt: Attempt,
    ledger: Ledger,
    store: Store,
) -> list[StagedRow]:
    """Encodes and stages protected photos side by side."""

    def staged(photo: UnstagedPhoto) -> StagedRow:
        if photo.image is None:
            return StagedRow(photo.row, photo.output_key)
        content = photo.coding.encode(photo.image, photo.copyright)
        key = ledger.staged_key(photo_set.key, attempt.id, photo.file_name)
        store.write(key, content)
        row = replace(
            photo.row,
            output_sha256=sha256(content).hexdigest(),
            output_bytes=len(content),
            output_format=photo.coding.file_format.lower(),
        )
        return StagedRow(row, photo.output_key, key)

    with ThreadPoolExecutor(_ENCODERS) as pool:
        return list(pool.map(staged, photos))


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
