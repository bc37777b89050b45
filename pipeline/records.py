"""The records that travel between steps, and the manifest's schema: a contract in one place.

Knows columns and their meaning. Knows nothing of how they are stored or computed.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import pyarrow as pa

RECORD_VERSION = 1
"""Raised whenever a column or a field of a commit record changes its meaning."""

RowStatus = Literal[
    "protected",
    "layer1_only",
    "layer2_only",
    "skipped",
    "failed",
    "quarantined",
    "deferred",
    "source_gone",
]
"""State of a source photo; ``layer1_only`` and ``layer2_only``: a configured layer could not be
done; ``deferred``: not decided, the environment was at fault; every other one is a decision."""


PROTECTED_STATUSES = frozenset(("protected", "layer1_only", "layer2_only"))
"""Statuses with a protected photo in OUTPUT."""
MISSING_VERSION = ""
"""Version of a photo that a catalog file names and that is not there."""


@dataclass(frozen=True)
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
    previous_row: str | None = None
    """That decision's manifest row as JSON, to be repeated under the new version."""


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
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        for name in ("photos", "references"):
            values[name] = tuple(SourcePhoto(**photo) for photo in values[name])
        return cls(**values)


@dataclass
class ReadPhoto:
    """Outcome of reading one photo: bytes, or the trouble that is that photo's status."""

    content: bytes | None
    sha256: str | None
    reason: str | None = None
    """Set where ``content`` is None or must not be decoded, e.g. ``too_large``."""
    environment: bool = False
    """True: the store was at fault (denied, throttled, unreachable), not the photo."""


@dataclass
class CommitRecord:
    """The one record that decides a photo set: ``runs/<id>/commits/<key>.<g>.json``."""

    set_key: str
    generation: int
    identity: str
    run_id: str
    attempt: str
    outcome: Literal["done", "failed", "quarantined"]
    rows: list[dict[str, Any]]
    """One manifest row per photo of the set (``MANIFEST_SCHEMA``), with staged data keys."""
    reason: str | None = None
    version: int = RECORD_VERSION
    committed_at: str = ""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        values = json.loads(data)
        if values.get("version") != RECORD_VERSION:
            raise ValueError(
                f"commit record has version {values.get('version')}, this program reads "
                f"{RECORD_VERSION}: use the dladiff version that wrote it"
            )
        return cls(**values)


_FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("mask_extent", pa.list_(pa.int32())),
    ]
)
_COSINE = pa.struct(
    [
        ("encoder", pa.string()),
        ("held_out", pa.bool_()),
        ("before", pa.float32()),
        ("after", pa.float32()),
        ("after_handling", pa.float32()),
    ]
)

_COLUMNS: list[tuple[str, pa.DataType, str]] = [
    ("identity", pa.string(), "Folder or catalog name of the person."),
    ("set_key", pa.string(), "Photo set in which this photo was decided; null: none was needed."),
    ("num_reference", pa.int32(), "Reference originals that Step 0 read besides the set."),
    ("source_uri", pa.string(), "Where the original lies."),
    ("source_version", pa.string(), "Etag or version id; local: size and mtime_ns."),
    ("source_bytes", pa.int64(), "Size of the original in bytes."),
    ("source_sha256", pa.string(), "Of the original's bytes; null where it was never read."),
    ("output_uri", pa.string(), "Where the protected photo is served; null: none."),
    ("output_sha256", pa.string(), "Of the protected file's bytes."),
    ("status", pa.string(), "See RowStatus."),
    ("reason", pa.string(), "Why, where the status is not protected."),
    ("target_met", pa.bool_(), "Every white-box cosine at most layer2.target_cosine."),
    ("stop_reason", pa.string(), "Why the iterations ended."),
    ("width", pa.int32(), "Of original and output, upright, in pixels."),
    ("height", pa.int32(), "Of original and output, upright, in pixels."),
    ("num_faces", pa.int32(), "Faces found on the original."),
    ("faces", pa.list_(_FACE), "Box (left, top, right, bottom), 5 landmarks, mask extent, px."),
    ("epsilon_finetune_levels", pa.float32(), "Budget of layer 1 in 8-bit levels; 0: not run."),
    ("epsilon_zeroshot_levels", pa.float32(), "Budget of layer 2 in 8-bit levels; 0: not run."),
    ("max_change_levels", pa.int32(), "Largest change of the re-read file, 8-bit levels."),
    ("max_change_levels_outside_faces", pa.int32(), "The same outside all mask extents."),
    ("psnr_db", pa.float32(), "Re-read file against the original, dB."),
    ("ssim", pa.float32(), "Structural similarity in [0, 1]."),
    ("lpips", pa.float32(), "LPIPS (AlexNet); null where its weights are not installed."),
    ("learned_fraction", pa.float32(), "What a probe still learned of the clean photos, 0..1."),
    ("identity_cosines", pa.list_(_COSINE), "Clean against protected, per encoder."),
    ("attention_loss_before", pa.float32(), "L_att at the random start."),
    ("attention_loss_after", pa.float32(), "L_att of the set after layer 1."),
    ("denoising_loss_before", pa.float32(), "L_den of the clean photos."),
    ("denoising_loss_after", pa.float32(), "L_den of the set after layer 1."),
    ("seed", pa.int64(), "Of the method."),
    ("method_digest", pa.string(), "Digest of all that changes bytes."),
    ("models_digest", pa.string(), "Digest of the weight files alone."),
    ("version", pa.string(), "Version of dladiff."),
    ("run_id", pa.string(), "Run that decided this row."),
    ("attempt", pa.string(), "Attempt of the set that won."),
    ("seconds", pa.float32(), "Wall seconds of the set divided by its photos."),
    ("gpu_seconds", pa.float32(), "The same on the GPU."),
    ("committed_at", pa.string(), "UTC, ISO 8601."),
]

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field(name, column_type, metadata={"description": description})
        for name, column_type, description in _COLUMNS
    ],
    metadata={"dladiff_record_version": str(RECORD_VERSION)},
)
"""One row per photo that a run decided on; append-only, the newest row of a source is its state."""


def empty_row() -> dict[str, Any]:
    """A manifest row with every column null."""
    return dict.fromkeys(MANIFEST_SCHEMA.names)
