"""The records that travel between steps: photos, photo sets, and the commit that decides a set.

Knows their fields and how they become JSON. Knows nothing of how they are stored or computed.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, Self

from pipeline.manifest_row import RECORD_VERSION, ManifestRow, RowStatus
from pipeline.reasons import Reason

MISSING_VERSION = ""
"""Version of a photo that a catalog file names and that is not there."""


@dataclass(frozen=True, slots=True)
class Twin:
    """What OUTPUT holds of another photo, which may have the same content."""

    uri: str
    """URI of the other original."""
    sha256: str
    """sha256 hex of its content."""
    output_key: str
    """Where its protected photo lies."""
    output_sha256: str


@dataclass(frozen=True, slots=True)
class SourcePhoto:
    """One photo as the catalog found it; nothing of it has been read yet."""

    identity: str
    uri: str
    """Absolute URI, e.g. ``s3://bucket/in/ann/1.jpg`` or ``file:///in/ann/1.jpg``."""
    output_key: str
    """Key of the protected photo below OUTPUT, e.g. ``images/ann/1.jpg.png``."""
    size_bytes: int
    version: str
    """Changes when the content may have changed: etag or version id; local size and mtime_ns."""
    modified_s: float | None = None
    """Unix time at which the store says the photo was last written; None: it says nothing."""
    previous_sha256: str | None = None
    """Set where OUTPUT holds a decision by this method for another version of the photo: content
    with this sha256 is the one already decided on, so the photo is unchanged, not done again."""
    twins: tuple[Twin, ...] = ()
    """Photos of the same size that this method has protected, one for each content."""

    def __reduce__(self) -> tuple[Any, ...]:
        """In half the time of a dataclass's own way: plans of millions are pickled."""
        return SourcePhoto, _PHOTO_VALUES(self)


_PHOTO_NAMES = tuple(each.name for each in dataclasses.fields(SourcePhoto))
_PHOTO_VALUES = attrgetter(*_PHOTO_NAMES)


@dataclass(frozen=True)
class PhotoSet:
    """Photos of one identity that are protected together: one block, one task, one commit."""

    key: str
    """sha256 hex of identity, ordered (uri, version), references and method digest."""
    identity: str
    photos: tuple[SourcePhoto, ...]
    references: tuple[SourcePhoto, ...] = ()
    """More originals of the identity, read for Step 0 only, never written."""
    generation: int = 0
    """Raised by ``--retry-failed`` and ``--retry-quarantined``; the highest is the truth."""

    def to_json(self) -> str:
        values = vars(self) | {
            "photos": [*map(_photo_fields, self.photos)],
            "references": [*map(_photo_fields, self.references)],
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        for name in ("photos", "references"):
            values[name] = tuple(_source_photo(photo) for photo in values[name])
        return cls(**values)


def _photo_fields(photo: SourcePhoto) -> dict[str, Any]:
    fields = dict(zip(_PHOTO_NAMES, _PHOTO_VALUES(photo), strict=True))
    return fields | {"twins": [dataclasses.asdict(twin) for twin in photo.twins]}


def _source_photo(values: dict[str, Any]) -> SourcePhoto:
    twins = tuple(Twin(**twin) for twin in values.get("twins", ()))
    return SourcePhoto(**values | {"twins": twins})


def num_photos_of(photo_sets: Iterable[PhotoSet]) -> int:
    """Photos to protect in all of these sets."""
    return sum(len(photo_set.photos) for photo_set in photo_sets)


@dataclass
class ReadPhoto:
    """Outcome of reading one photo: its bytes, or why there are none."""

    content: bytes | None
    sha256: str | None
    reason: Reason | None = None
    """The photo is at fault."""
    cause: str | None = None
    """The store is at fault: ``EnvironmentTrouble.cause``."""


@dataclass(frozen=True)
class StagedRow:
    """A manifest row on its way through a commit, and where its protected photo lies."""

    row: ManifestRow
    output_key: str
    """Key below OUTPUT under which the photo will be served; see ``ManifestRow.output_uri``."""
    staged_key: str | None = None
    """Key below OUTPUT of the attempt's own copy of the protected photo; None: there is none."""
    same_as: str | None = None
    """URI of another original with the same content, whose newest row says what this one lacks."""

    def to_fields(self) -> dict[str, Any]:
        """One flat object, as it stands in a commit record."""
        keys = {"output_key": self.output_key, "staged_key": self.staged_key}
        same = {"same_as": self.same_as} if self.same_as else {}
        return self.row.to_columns() | keys | same

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``to_fields``.

        Raises:
            TypeError: For a field that is neither a column nor one of those beside them.
            ValueError: Without ``output_key``.
        """
        columns = dict(fields)
        if "output_key" not in columns:
            raise ValueError("a row lacks output_key: an earlier version of dladiff wrote it")
        output_key, staged_key = columns.pop("output_key"), columns.pop("staged_key", None)
        same_as = columns.pop("same_as", None)
        return cls(ManifestRow.from_columns(columns), output_key, staged_key, same_as)


def photo_row(
    photo: SourcePhoto,
    status: RowStatus,
    photo_set: PhotoSet | None = None,
    reason: Reason | None = None,
) -> ManifestRow:
    """A row with the columns that the catalog and the plan know, all others null.

    Args:
        photo_set: The set in which the photo was decided, None where none was needed.
    """
    return ManifestRow(
        identity=photo.identity,
        set_key=photo_set.key if photo_set else None,
        num_reference=len(photo_set.references) if photo_set else None,
        source_uri=photo.uri,
        source_version=photo.version,
        source_bytes=photo.size_bytes,
        status=status,
        reason=None if reason is None else str(reason),
    )


@dataclass(frozen=True)
class RunColumns:
    """Columns that all rows of a run share."""

    seed: int | None = None
    method_digest: str | None = None
    models_digest: str | None = None
    version: str | None = None

    def fill(self, row: ManifestRow) -> ManifestRow:
        """The row with these columns where it has null."""
        shared = vars(self).items()
        return dataclasses.replace(
            row, **{name: value for name, value in shared if getattr(row, name) is None}
        )


@dataclass(frozen=True)
class UnchangedPhoto:
    """A photo of another version but the same content: its earlier row holds on."""

    source_uri: str
    source_version: str
    """The new one."""
    source_sha256: str | None
    """Digest of the content."""


CommitName = tuple[str, int]
"""Set key and generation."""


@dataclass
class CommitRecord:
    """The one record that decides a photo set: ``runs/<id>/commits/<key>.<g>.json``."""

    set_key: str
    generation: int
    identity: str
    run_id: str
    attempt: str
    outcome: Literal["done", "failed", "quarantined"]
    rows: list[StagedRow]
    """One per photo of the set that is not unchanged, in the plan's order."""
    reason: str | None = None
    version: int = RECORD_VERSION
    committed_at: str = ""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)
    unchanged: list[UnchangedPhoto] = field(default_factory=list)
    """The fold repeats their earlier rows under the new versions."""

    @property
    def num_photos(self) -> int:
        return len(self.rows) + len(self.unchanged)

    def statuses(self) -> dict[str, int]:
        """Photos by status; ``unchanged`` where the earlier decision holds on, ``copied`` where
        that on another photo of the same content does."""
        counts = Counter[str](
            "copied" if staged.same_as else staged.row.status for staged in self.rows
        )
        return dict(counts) | ({"unchanged": len(self.unchanged)} if self.unchanged else {})

    def to_bytes(self) -> bytes:
        values = vars(self) | {
            "rows": [staged.to_fields() for staged in self.rows],
            "unchanged": [dataclasses.asdict(photo) for photo in self.unchanged],
        }
        return json.dumps(values, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of ``to_bytes``.

        Raises:
            ValueError: If another version wrote it, or it is no JSON.
            TypeError: If it is damaged: a field is missing, or one too many.
        """
        values = json.loads(data)
        if values.get("version") != RECORD_VERSION:
            raise ValueError(
                f"commit record has version {values.get('version')}, this program reads "
                f"{RECORD_VERSION}: use the dladiff version that wrote it"
            )
        values["rows"] = [StagedRow.from_fields(fields) for fields in values["rows"]]
        values["unchanged"] = [UnchangedPhoto(**photo) for photo in values.get("unchanged", ())]
        return cls(**values)
