"""Who reached the target likeness and who did not, in words. Names encoders, never people."""

from pipeline.reporting.words import format_count
from pipeline.targets import TargetCounts

NONE_REACHED = "NONE reached the target likeness"
"""Belongs into the first line that a person reads where it is so."""


def target_text(targets: TargetCounts) -> str | None:
    """``reached by 12 of 16 photos (dlib 15, sface 13); 4 are ...``; None: no photo has one."""
    if not targets.num_photos:
        return None
    text = f"reached by {targets.num_met:,} of {format_count(targets.num_photos, 'photo')}"
    if by_encoder := ", ".join(
        f"{encoder} {targets.met_by.get(encoder, 0):,}" for encoder in targets.encoders
    ):
        text += f" ({by_encoder})"
    if targets.num_missed:
        verb = "is" if targets.num_missed == 1 else "are"
        text += f"; {targets.num_missed:,} {verb} protected less than asked for"
    if targets.num_face_lost:
        text += f", in {targets.num_face_lost:,} of them a face is not found again"
    return text


def target_shortfall(targets: TargetCounts, min_share: float) -> str | None:
    """What was asked for and not reached, as a sentence; None: all is well."""
    if not targets.is_below(min_share):
        return None
    photos = format_count(targets.num_photos, "photo")
    return (
        f"{targets.num_met:,} of {photos} reached the target likeness, fewer than "
        f"--min-target-met {min_share:g} asks for"
    )
