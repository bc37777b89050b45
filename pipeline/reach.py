"""How far protection reached: the likeness that was asked for, and the faces that were left out.

Knows rows of the manifest; names nobody.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow

REACH_COLUMNS = ("status", "target_met", "target_cosine", "identity_cosines", "faces_left_out")
"""Columns of the manifest that ``Reach`` reads."""


@dataclass(frozen=True)
class Reach:
    """Protected photos with a face, which alone have a target, by whether they reached it; and the
    faces of photos that were seen and are not protected."""

    num_met: int = 0
    num_missed: int = 0
    num_face_lost: int = 0
    """Of the missed ones: every encoder is at the target, but a face was not found again on the
    protected photo, so that its likeness there is not known."""
    met_by: Mapping[str, int] = field(default_factory=dict)
    """Photos whose likeness for this encoder, one of those in the loss, is at most the target."""
    missed_by: Mapping[str, int] = field(default_factory=dict)
    """Photos whose likeness is above it. Rows of earlier versions do not say which target they
    had: they are counted as photos, not by encoder."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Faces by cause (``dladiff.results.LeftOutCause``), of photos without any protection too."""
    num_left_out_photos: int = 0
    """Photos with such faces."""

    @classmethod
    def of(cls, rows: Iterable[ManifestRow]) -> Self:
        """Counts rows that have ``REACH_COLUMNS``."""
        numbers, met_by, missed_by = Counter[str](), Counter[str](), Counter[str]()
        left_out = Counter[str]()
        for row in rows:
            numbers["left_out"] += bool(row.faces_left_out)
            left_out.update({each.cause: each.number for each in row.faces_left_out or ()})
            if row.status not in PROTECTED_STATUSES or row.target_met is None:
                continue
            numbers["met" if row.target_met else "missed"] += 1
            if row.target_cosine is None:
                continue
            above = _encoders_above(row, row.target_cosine)
            numbers["face_lost"] += not above and not row.target_met
            missed_by.update(above)
            met_by.update(_judging(row) - above)
        return cls(
            numbers["met"],
            numbers["missed"],
            numbers["face_lost"],
            dict(met_by),
            dict(missed_by),
            dict(left_out),
            numbers["left_out"],
        )

    @property
    def num_photos(self) -> int:
        """Photos that have a target."""
        return self.num_met + self.num_missed

    @property
    def share_met(self) -> float | None:
        """Share of the photos with a target that reached it; None: there are none."""
        return self.num_met / self.num_photos if self.num_photos else None

    @property
    def all_missed(self) -> bool:
        """Whether there are photos with a target and none of them reached it."""
        return self.num_missed > 0 and not self.num_met

    @property
    def encoders(self) -> list[str]:
        """Those of which anything is known, by name."""
        return sorted({*self.met_by, *self.missed_by})

    def is_below(self, min_share: float) -> bool:
        """Whether a smaller share than this reached the target."""
        return self.share_met is not None and self.share_met < min_share

    def __add__(self, other: "Reach") -> "Reach":
        return Reach(
            self.num_met + other.num_met,
            self.num_missed + other.num_missed,
            self.num_face_lost + other.num_face_lost,
            dict(Counter(self.met_by) + Counter(other.met_by)),
            dict(Counter(self.missed_by) + Counter(other.missed_by)),
            dict(Counter(self.left_out) + Counter(other.left_out)),
            self.num_left_out_photos + other.num_left_out_photos,
        )

    def __sub__(self, other: "Reach") -> "Reach":
        return Reach(
            self.num_met - other.num_met,
            self.num_missed - other.num_missed,
            self.num_face_lost - other.num_face_lost,
            dict(Counter(self.met_by) - Counter(other.met_by)),
            dict(Counter(self.missed_by) - Counter(other.missed_by)),
            dict(Counter(self.left_out) - Counter(other.left_out)),
            self.num_left_out_photos - other.num_left_out_photos,
        )


def _judging(row: ManifestRow) -> set[str]:
    """Encoders in the loss."""
    return {cosine.encoder for cosine in row.identity_cosines or () if not cosine.held_out}


def _encoders_above(row: ManifestRow, target_cosine: float) -> set[str]:
    """Those of them for which the photo is not at its target."""
    return {
        cosine.encoder
        for cosine in row.identity_cosines or ()
        if not cosine.held_out and (cosine.after is None or cosine.after > target_cosine)
    }
