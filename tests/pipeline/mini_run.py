"""Photo sets of a few bytes, and their commits as a worker would write them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.output.ledger import Attempt, Ledger
from pipeline.records import CommitRecord, PhotoSet, SourcePhoto, StagedRow, photo_row
from pipeline.storage.store import Store


def source_photo(name: str, content: bytes) -> SourcePhoto:
    return SourcePhoto(
        identity=name.partition("/")[0],
        uri=f"file:///in/{name}",
        output_key=f"images/{name}.png",
        size_bytes=len(content),
        version=hashlib.md5(content).hexdigest(),
    )


def photo_set(photos: Iterable[SourcePhoto], generation: int = 0) -> PhotoSet:
    chosen = tuple(photos)
    text = ",".join(f"{photo.uri} {photo.version}" for photo in chosen)
    key = hashlib.sha256(text.encode()).hexdigest()
    return PhotoSet(key, chosen[0].identity, chosen, generation=generation)


def protect(content: bytes) -> bytes:
    return b"protected " + content


def done_record(
    store: Store, ledger: Ledger, work: PhotoSet, attempt: Attempt, inputs: Mapping[str, bytes]
) -> CommitRecord:
    """Stages the set's outputs under the attempt, as a worker does, and describes them."""
    rows: list[StagedRow] = []
    for number, photo in enumerate(work.photos):
        data = protect(inputs[photo.uri.removeprefix("file:///in/")])
        staged = ledger.staged_key(work.key, attempt.id, f"{number}.png")
        store.write(staged, data)
        sha256 = hashlib.sha256(data).hexdigest()
        row = replace(photo_row(photo, "protected", work), output_sha256=sha256)
        rows.append(StagedRow(row, photo.output_key, staged))
    return CommitRecord(work.key, work.generation, work.identity, "", attempt.id, "done", rows)
