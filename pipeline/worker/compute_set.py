"""Groups of photos -> what the method makes of them: decoding, and a second try where it fails.

Knows pixels and the method. Knows no ledger, no rows and no store.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from dladiff.config import MethodSettings
from dladiff.content_keys import content_keys
from dladiff.results import Cost, OnProgress, Photo, PhotoResult, SetResult
from pipeline.catalog.output_keys import ending_of
from pipeline.errors import PhotoError
from pipeline.images.coding import Coding, PreparedPhoto, prepare
from pipeline.images.files import DecodedPhoto, PhotoLimits, decode_photo
from pipeline.worker.protector import Protector
from pipeline.worker.set_inputs import PhotoGroup, RefusedPhoto, WholePhoto
from pipeline.worker.troubles import environment_trouble, is_out_of_memory

logger = logging.getLogger("dladiff.worker")


@dataclass(frozen=True)
class DecodedGroup:
    """A group's pixels, native size."""

    photos: list[tuple[WholePhoto, DecodedPhoto]]
    references: list[tuple[WholePhoto, DecodedPhoto]]
    damaged: list[RefusedPhoto]
    """Photos whose header was whole and whose pixels are not."""


@dataclass(frozen=True)
class ComputedPhoto:
    """A photo with the pixels it had and what became of them."""

    photo: WholePhoto
    decoded: DecodedPhoto
    result: PhotoResult
    coding: Coding
    coding_notes: tuple[str, ...]


@dataclass(frozen=True)
class ComputedGroup:
    """What the method made of a group."""

    photos: list[ComputedPhoto]
    result: SetResult


def decode_group(
    group: PhotoGroup, limits: PhotoLimits, on_progress: Callable[[], None]
) -> DecodedGroup:
    """Decodes a group's photos and references; ``on_progress`` is called before each.

    A damaged reference is simply none. The order is that of the photos' content, so that the same
    album gives the same bytes wherever it lies.
    """
    photos: list[tuple[WholePhoto, DecodedPhoto]] = []
    references, damaged = list[tuple[WholePhoto, DecodedPhoto]](), list[RefusedPhoto]()
    for photo in sorted(group.photos, key=_by_content):
        on_progress()
        try:
            photos.append((photo, decode_photo(photo.content, limits)))
        except PhotoError as error:
            damaged.append(RefusedPhoto(photo.source, photo.sha256, error.reason))
    for reference in sorted(group.references, key=_by_content):
        on_progress()
        with suppress(PhotoError):
            references.append((reference, decode_photo(reference.content, limits)))
    return DecodedGroup(photos, references, damaged)


def protect_group(
    group: DecodedGroup,
    protect: Protector,
    method: MethodSettings,
    on_progress: OnProgress,
    content_decides: bool = True,
) -> ComputedGroup:
    """Protects a decoded group: smaller micro-batches where memory runs out, else a second try.

    Raises:
        Exception: Whatever the method raised twice, or a trouble of the environment.
    """
    if not group.photos:
        return ComputedGroup([], SetResult(photos=[]))
    num_photos = len(group.photos)
    prepared = [_prepared(photo, decoded, content_decides) for photo, decoded in group.photos]
    to_do = [(photo, one.decoded) for (photo, _), one in zip(group.photos, prepared, strict=True)]
    given = _method_photos([*to_do, *group.references])
    photos, references = given[:num_photos], given[num_photos:]
    photos = [
        replace(
            photo,
            read_back=one.coding.read_back,
            jpeg_quality=one.coding.about_jpeg_quality,
            is_grey=one.coding.grey,
        )
        if one.coding.changes_pixels
        else photo
        for photo, one in zip(photos, prepared, strict=True)
    ]
    result = _protect_with_retries(photos, references, protect, method, on_progress)
    computed = [
        ComputedPhoto(photo, of_file.decoded, one, of_file.coding, of_file.notes)
        for (photo, _), one, of_file in zip(group.photos, result.photos, prepared, strict=True)
    ]
    return ComputedGroup(computed, result)


def cost_of_both(one: Cost, other: Cost) -> Cost:
    """The cost of two groups of a set, done one after the other."""
    total = {
        field.name: getattr(one, field.name) + getattr(other, field.name)
        for field in fields(Cost)
        if field.name not in ("seconds", "peak_memory_gb")
    }
    seconds = Counter(one.seconds)
    seconds.update(other.seconds)
    peak = max(one.peak_memory_gb, other.peak_memory_gb)
    return Cost(**total, seconds=dict(seconds), peak_memory_gb=peak)


def _protect_with_retries(
    photos: Sequence[Photo],
    references: Sequence[Photo],
    protect: Protector,
    method: MethodSettings,
    on_progress: OnProgress,
) -> SetResult:
    """Smaller micro-batches where memory runs out, a second try otherwise."""
    tries = 0
    while True:
        try:
            return protect(photos, references, method, on_progress)
        except Exception as error:
            if is_out_of_memory(error) and method.micro_batch > 1:
                method = method.model_copy(update={"micro_batch": method.micro_batch // 2})
                logger.warning("memory ran out: micro-batch %d", method.micro_batch)
                continue
            tries += 1
            if environment_trouble(error) or tries == 2:
                raise


def _by_content(photo: WholePhoto) -> tuple[str, str]:
    """Sorts by content; copies of one photo by their place in OUTPUT, which moves with neither."""
    return photo.sha256, photo.source.output_key


def _prepared(photo: WholePhoto, decoded: DecodedPhoto, content_decides: bool) -> PreparedPhoto:
    endings = ending_of(photo.source.uri), ending_of(photo.source.output_key)
    return prepare(photo.content, decoded, *endings, content_decides)


def _method_photos(photos: Sequence[tuple[WholePhoto, DecodedPhoto]]) -> list[Photo]:
    """Keyed by content: the same photo gets the same noise wherever it lies."""
    keys = content_keys([photo.sha256 for photo, _ in photos])
    return [
        Photo(key=key, image=decoded.image) for key, (_, decoded) in zip(keys, photos, strict=True)
    ]
