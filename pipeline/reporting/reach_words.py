"""Who reached the target likeness and who was left out, in words. Names nobody."""

from pipeline.reach import Reach
from pipeline.reporting.words import format_count

NONE_REACHED = "NONE reached the target likeness"
"""Belongs into the first line that a person reads where it is so."""


def target_text(reach: Reach) -> str | None:
    """``reached by 12 of 16 photos (dlib 15, sface 13); 4 are ...``; None: no photo has one."""
    if not reach.num_photos:
        return None
    text = f"reached by {reach.num_met:,} of {format_count(reach.num_photos, 'photo')}"
    if by_encoder := ", ".join(
        f"{encoder} {reach.met_by.get(encoder, 0):,}" for encoder in reach.encoders
    ):
        text += f" ({by_encoder})"
    if reach.num_missed:
        verb = "is" if reach.num_missed == 1 else "are"
        text += f"; {reach.num_missed:,} {verb} protected less than asked for"
    if reach.num_face_lost:
        text += f", in {reach.num_face_lost:,} of them a face is not found again"
    return text


def left_out_text(reach: Reach) -> str | None:
    """``13 faces in 1 photo (too many 13)``; None: nobody is left out."""
    if not reach.num_left_out_photos:
        return None
    causes = ", ".join(
        f"{cause.replace('_', ' ')} {number:,}" for cause, number in sorted(reach.left_out.items())
    )
    faces = format_count(sum(reach.left_out.values()), "face")
    return f"{faces} in {format_count(reach.num_left_out_photos, 'photo')} ({causes})"


def target_shortfall(reach: Reach, min_share: float) -> str | None:
    """What was asked for and not reached, as a sentence; None: all is well."""
    if not reach.is_below(min_share):
        return None
    photos = format_count(reach.num_photos, "photo")
    return (
        f"{reach.num_met:,} of {photos} reached the target likeness, fewer than "
        f"--min-target-met {min_share:g} asks for"
    )
