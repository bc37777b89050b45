"""What of a photo set can be worked on, and in which groups, before any pixel is decoded.

Knows encoded bytes and headers. Knows nothing of models, ledgers or stores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import PhotoError
from pipeline.images.files import PhotoLimits, read_size
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import PhotoSet, ReadPhoto, SourcePhoto, Twin


@dataclass(frozen=True)
class WholePhoto:
    """A photo that was read and whose header promises pixels within the limits."""

    source: SourcePhoto
    index: int
    """Place in the set, references after photos; names the staged file."""
    content: bytes
    sha256: str
    num_pixels: int


@dataclass(frozen=True)
class RefusedPhoto:
    """A photo that cannot be worked on, and why."""

    source: SourcePhoto
    sha256: str | None
    reason: Reason


@dataclass(frozen=True)
class PhotoGroup:
    """Photos of a set that are decoded and protected together, with their references."""

    photos: list[WholePhoto]
    references: list[WholePhoto]


@dataclass(frozen=True)
class SetInputs:
    """The photos of a set, sorted by what is to be done with them; each in the plan's order."""

    to_do: list[WholePhoto] = field(default_factory=list)
    references: list[WholePhoto] = field(default_factory=list)
    """Unchanged photos of the set, then the plan's references: read for Step 0 only."""
    unchanged: list[WholePhoto | RefusedPhoto] = field(default_factory=list)
    """Content that OUTPUT already holds a decision on."""
    refused: list[RefusedPhoto] = field(default_factory=list)
    known: list[tuple[WholePhoto, Twin]] = field(default_factory=list)
    """Content that OUTPUT holds protected under another path."""

    def compute_too(self, photos: Sequence[WholePhoto]) -> None:
        """Adds photos to those that are to be done, in their place."""
        self.to_do.extend(photos)
        self.to_do.sort(key=lambda photo: photo.index)


def sort_inputs(
    photo_set: PhotoSet, reads: Sequence[ReadPhoto], limits: PhotoLimits, keep_references: bool
) -> SetInputs:
    """Sorts the photos of a set by what is to be done with them.

    Args:
        reads: One per photo, then one per reference.
        keep_references: Whether the method reads any; else their pixels are never decoded.
    """
    inputs = SetInputs()
    sources = (*photo_set.photos, *photo_set.references)
    for index, (source, read) in enumerate(zip(sources, reads, strict=True)):
        photo = _open(source, index, read, limits)
        is_reference = index >= len(photo_set.photos)
        is_unchanged = source.previous_sha256 is not None and source.previous_sha256 == read.sha256
        if isinstance(photo, WholePhoto) and (is_reference or is_unchanged):
            if keep_references:
                inputs.references.append(photo)
        elif isinstance(photo, WholePhoto) and (twin := _twin_of(photo)) is not None:
            inputs.known.append((photo, twin))
        elif isinstance(photo, WholePhoto):
            inputs.to_do.append(photo)
        elif not is_reference and not is_unchanged:
            inputs.refused.append(photo)
        if is_unchanged and not is_reference:
            inputs.unchanged.append(photo)
    return inputs


def groups_within(inputs: SetInputs, max_pixels: int) -> list[PhotoGroup]:
    """Consecutive groups whose photos and references have at most so many pixels together.

    A set within the limit is one group. Otherwise references are kept while they fill at most
    half of it, and each group has these; a photo that is too large even so is a group of its own.
    """
    photos, references = inputs.to_do, inputs.references
    if not photos:
        return []
    if _num_pixels([*photos, *references]) <= max_pixels:
        return [PhotoGroup(photos, references)]
    kept: list[WholePhoto] = []
    for reference in references:
        if _num_pixels([*kept, reference]) <= max_pixels // 2:
            kept.append(reference)
    left = max_pixels - _num_pixels(kept)
    groups: list[list[WholePhoto]] = [[]]
    for photo in photos:
        if groups[-1] and _num_pixels([*groups[-1], photo]) > left:
            groups.append([])
        groups[-1].append(photo)
    return [PhotoGroup(group, kept) for group in groups]


def _open(
    source: SourcePhoto, index: int, read: ReadPhoto, limits: PhotoLimits
) -> WholePhoto | RefusedPhoto:
    if read.content is None or read.sha256 is None or read.reason is not None:
        return RefusedPhoto(source, read.sha256, read.reason or Reason(ReasonCode.UNREADABLE))
    try:
        width, height = read_size(read.content, limits)
    except PhotoError as error:
        return RefusedPhoto(source, read.sha256, error.reason)
    return WholePhoto(source, index, read.content, read.sha256, width * height)


def _twin_of(photo: WholePhoto) -> Twin | None:
    same = (twin for twin in photo.source.twins if twin.sha256 == photo.sha256)
    return next(same, None)


def _num_pixels(photos: Sequence[WholePhoto]) -> int:
    return sum(photo.num_pixels for photo in photos)
