"""One row of the manifest: its columns, their types and their meaning, in one place.

Column names are a contract with whoever reads ``manifest/``. Knows nothing of how rows are
computed or stored.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

import pyarrow as pa

RECORD_VERSION = 1
"""Raised whenever a column or a field of a commit record changes its meaning."""

RowStatus = Literal[
    "protected",
    "partly_protected",
    "layer1_only",
    "layer2_only",
    "skipped",
    "failed",
    "quarantined",
    "deferred",
    "source_gone",
]
"""State of a source photo; ``partly_protected``: faces were seen in it that are not protected, see
``faces_left_out``; ``layer1_only``: no face was found for layer 2; ``layer2_only`` was
promised earlier, is still read, and is never written; ``deferred``: not decided, the environment
was at fault; every other one is a decision."""

PROTECTED_STATUSES = frozenset(("protected", "partly_protected", "layer1_only", "layer2_only"))
"""Statuses with a protected photo in OUTPUT."""

Int64 = Annotated[int, pa.int64()]
"""Other integers are 32 bits wide in the manifest."""


@dataclass(frozen=True)
class FaceColumn:
    """One face of the original, in its pixels."""

    box: list[float]
    """Left, top, right, bottom; may reach over the border."""
    landmarks: list[float]
    """x and y of left eye, right eye, nose, left and right mouth corner."""
    score: float
    mask_extent: list[int] | None = None
    """Left, top, right, bottom (exclusive) outside of which layer 2 changed nothing."""


@dataclass(frozen=True)
class CosineColumn:
    """Likeness of clean and protected photo for one identity encoder."""

    encoder: str
    held_out: bool
    before: float | None
    after: float | None
    after_handling: float | None


LEFT_OUT_CAUSES = ("too_many", "too_small", "low_score")
"""Why a face that was seen is not protected, as ``dladiff.results.LeftOutCause`` says."""


@dataclass(frozen=True)
class LeftOutColumn:
    """Faces that were seen and are not protected, for one cause."""

    cause: str
    """One of ``LEFT_OUT_CAUSES``."""
    number: int


def _column(description: str, **default: Any) -> Any:
    return dataclasses.field(metadata={"description": description}, **default)


def _null(description: str) -> Any:
    return _column(description, default=None)


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """What a run decided on one photo; the newest row of a source is its state."""

    identity: str = _column("Folder or catalog name of the person.")
    set_key: str | None = _null("Photo set in which this photo was decided; null: none was needed.")
    num_reference: int | None = _null("Reference originals that Step 0 read besides the set.")
    source_uri: str = _column("Where the original lies.")
    source_version: str = _column("Etag or version id; local: size and mtime_ns.")
    source_bytes: Int64 | None = _null("Size of the original in bytes.")
    source_sha256: str | None = _null("Of the original's bytes; null where it was never read.")
    output_uri: str | None = _null("Where the protected photo is served; null: none.")
    output_sha256: str | None = _null("Of the protected file's bytes.")
    output_bytes: Int64 | None = _null("Size of the protected file in bytes.")
    output_format: str | None = _null(
        "jpeg, png, webp, heif or avif; null: png, of an earlier version."
    )
    status: RowStatus = _column("See RowStatus.")
    reason: str | None = _null("Why, where the status is not protected.")
    target_met: bool | None = _null("Every white-box cosine at most target_cosine.")
    target_cosine: float | None = _null("The target of target_met; null: none, or not recorded.")
    stop_reason: str | None = _null("Why the iterations ended.")
    width: int | None = _null("Of original and output, upright, in pixels.")
    height: int | None = _null("Of original and output, upright, in pixels.")
    source_notes: list[str] | None = _null("What of the file was changed or ignored on reading.")
    num_faces: int | None = _null("Faces found on the original.")
    faces: list[FaceColumn] | None = _null(
        "Box (left, top, right, bottom), 5 landmarks, mask extent, px."
    )
    faces_left_out: list[LeftOutColumn] | None = _null(
        "Faces seen and not protected: beyond detector.max_faces, below its min_size_px or its "
        "min_score; null: not counted, of an earlier version."
    )
    epsilon_finetune_levels: float | None = _null("Budget of layer 1 in 8-bit levels; 0: not run.")
    epsilon_zeroshot_levels: float | None = _null("Budget of layer 2 in 8-bit levels; 0: not run.")
    max_change_levels: int | None = _null("Largest change before coding, 8-bit levels.")
    coded_change_levels: int | None = _null(
        "Largest change of the re-read file against the original coded the same way."
    )
    max_change_levels_outside_faces: int | None = _null("The same outside all mask extents.")
    changed_pixels: float | None = _null("Share of its pixels with any change, 0..1.")
    psnr_db: float | None = _null("Re-read file against the original, dB.")
    ssim: float | None = _null("Structural similarity in [0, 1].")
    lpips: float | None = _null("LPIPS (AlexNet); null where its weights are not installed.")
    face_visibility_jod: float | None = _null(
        "Looks that the face keeps which shows most, at twice its size, in JOD of ColorVideoVDP; "
        "10: no difference is seen."
    )
    face_visibility_jod_1x: float | None = _null("The same at its own size.")
    identity_cosines: list[CosineColumn] | None = _null("Clean against protected, per encoder.")
    model_likeness: list[CosineColumn] | None = _null(
        "Clean photo against what the checkpoint's autoencoder shows of it, per encoder: what "
        "fine-tuning learns from."
    )
    attention_loss_before: float | None = _null("L_att at the random start.")
    attention_loss_after: float | None = _null("L_att of the set after layer 1.")
    attention_loss_after_layer2: float | None = _null("L_att of the set as it is served.")
    denoising_loss_before: float | None = _null("L_den of the clean photos.")
    denoising_loss_after: float | None = _null("L_den of the set after layer 1.")
    denoising_loss_after_layer2: float | None = _null("L_den of the set as it is served.")
    seed: Int64 | None = _null("Of the method.")
    method_digest: str | None = _null("Digest of all that changes bytes.")
    models_digest: str | None = _null("Digest of the weight files alone.")
    version: str | None = _null("Version of dladiff.")
    run_id: str | None = _null("Run that decided this row.")
    attempt: str | None = _null("Attempt of the set that won.")
    seconds: float | None = _null("Wall seconds of the set divided by its photos.")
    gpu_seconds: float | None = _null("The same on the GPU.")
    committed_at: str | None = _null("UTC, ISO 8601.")

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self:
        """The row of plain values, as Arrow and JSON give them; columns left out are null.

        Raises:
            TypeError: For a name that is no column, or without one that is never null.
        """
        values = dict(columns)
        kinds: dict[str, Any] = {"faces": FaceColumn, "identity_cosines": CosineColumn}
        kinds |= {"model_likeness": CosineColumn, "faces_left_out": LeftOutColumn}
        for name, kind in kinds.items():
            if values.get(name) is not None:
                values[name] = [kind(**entry) for entry in values[name]]
        return cls(**values)

    def to_columns(self) -> dict[str, Any]:
        """The same as plain values, every column named."""
        return dataclasses.asdict(self)


NEVER_NULL = tuple(
    field.name for field in dataclasses.fields(ManifestRow) if field.default is dataclasses.MISSING
)
"""Columns without which there is no row."""

_ARROW_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float32()}


def _arrow_type(annotation: Any) -> pa.DataType:
    """The column type of a field; every column may hold null."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, UnionType) or NoneType in arguments:
        (annotation,) = (each for each in arguments if each is not NoneType)
        return _arrow_type(annotation)
    if origin is Annotated:
        return arguments[1]
    if origin is Literal:
        return pa.string()
    if origin is list:
        return pa.list_(_arrow_type(arguments[0]))
    if dataclasses.is_dataclass(annotation):
        hints = get_type_hints(annotation)
        return pa.struct([(name, _arrow_type(hint)) for name, hint in hints.items()])
    return _ARROW_TYPES[annotation]


_HINTS = get_type_hints(ManifestRow, include_extras=True)

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field(each.name, _arrow_type(_HINTS[each.name]), metadata=each.metadata)
        for each in dataclasses.fields(ManifestRow)
    ],
    metadata={"dladiff_record_version": str(RECORD_VERSION)},
)
"""``ManifestRow`` as Arrow and Parquet see it; rows are appended, never changed."""
