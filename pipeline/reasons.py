"""Why a photo is not protected: a code that stays, what it means, and what a person can do.

The manifest's column ``reason`` holds ``code`` or ``code: detail``. Every code has its line in
``REASON_KINDS``; what is not in there is the name of an exception that ended a photo set, how often
it ended a process, or the cause of a deferral (``errors.EnvironmentTrouble.cause``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

ReasonClass = Literal["file", "access", "content", "output", "source", "set"]
"""Where the trouble lies.

``file``: in what the file is, which other limits or another version of this program may lift;
``access``: in reaching it, its content was never seen; ``content``: in what the photo shows;
``output``: in data that vanished from OUTPUT; ``source``: the original is gone; ``set``: in the
work on the whole photo set.
"""


class ReasonCode(StrEnum):
    """Codes that this program writes; none is ever renamed, since manifests hold them."""

    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    UNSUPPORTED_MODE = "unsupported_mode"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    NO_FACE = "no_face"
    FACES_LEFT_OUT = "faces_left_out"
    STAGED_DATA_LOST = "staged_data_lost"
    EARLIER_ROW_LOST = "earlier_row_lost"
    NOT_IN_INPUT = "not in INPUT any more"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True)
class ReasonKind:
    """What a code says to a person."""

    trouble: ReasonClass
    meaning: str
    """Half a sentence on the photo."""
    remedy: str | None = None
    """What to do; None: nothing, or nothing that this program knows of."""


REASON_KINDS: dict[str, ReasonKind] = {
    ReasonCode.EMPTY_FILE: ReasonKind("file", "the file is empty", "upload it again"),
    ReasonCode.NOT_AN_IMAGE: ReasonKind("file", "its content is no image, whatever its name says"),
    ReasonCode.UNSUPPORTED_FORMAT: ReasonKind(
        "file",
        "it is a photo in a format that is not read",
        "convert it to JPEG, PNG, WebP, HEIC, AVIF or TIFF",
    ),
    ReasonCode.TRUNCATED: ReasonKind(
        "file", "the file ends too early: it was probably not copied whole", "upload it again"
    ),
    ReasonCode.CORRUPT: ReasonKind("file", "the file is damaged", "upload it again"),
    ReasonCode.TOO_MANY_BYTES: ReasonKind(
        "file",
        "the file is larger than operation.max_photo_bytes",
        "raise that and run with --retry-failed",
    ),
    ReasonCode.TOO_MANY_PIXELS: ReasonKind(
        "file",
        "it has more pixels than operation.max_photo_megapixels",
        "raise that and run with --retry-failed",
    ),
    ReasonCode.TOO_SMALL: ReasonKind(
        "file",
        "a side is shorter than operation.min_photo_side_px",
        "lower that and run with --retry-failed",
    ),
    ReasonCode.UNSUPPORTED_MODE: ReasonKind(
        "file", "its kind of pixels is not supported", "convert it to 8 bits per value"
    ),
    ReasonCode.MISSING: ReasonKind(
        "access", "the catalog names it but there is no such file", "the next run looks again"
    ),
    ReasonCode.UNREADABLE: ReasonKind(
        "access", "it could not be read", "mend the access; the next run looks again"
    ),
    ReasonCode.NO_FACE: ReasonKind(
        "content",
        "no face was found in it that layer 2 could protect",
        "where faces were left out the row says how many: another detector.min_size_px or "
        "min_score with --on-method-change keep --reprotect num_faces=0 does these photos again",
    ),
    ReasonCode.FACES_LEFT_OUT: ReasonKind(
        "content",
        "faces were seen in it that are not protected",
        "detector.max_faces, min_size_px or min_score leaves them out; with another one "
        "--on-method-change keep --reprotect status=partly_protected does these photos again",
    ),
    ReasonCode.STAGED_DATA_LOST: ReasonKind(
        "output",
        "its finished data vanished from OUTPUT before it was published",
        "run with --retry-failed",
    ),
    ReasonCode.EARLIER_ROW_LOST: ReasonKind(
        "output", "its earlier row vanished from the manifest", "run with --retry-failed"
    ),
    ReasonCode.NOT_IN_INPUT: ReasonKind("source", "it is not in INPUT any more"),
    ReasonCode.NOT_REACHED: ReasonKind("set", "the run ended before it", "run it again"),
}


PASSED_OVER: dict[str, str] = {
    "hidden": "hidden or of a system",
    "other_type": "no photo by their first bytes",
    "empty": "empty",
    "left_out": "left out by --include or --exclude",
    "denied": "not readable, photos or not",
    "link_leaves_folder": "links that lead out of INPUT",
    "link_loop": "links that lead in a circle",
    "not_a_file": "no files (pipes, devices, links to nothing)",
    "undecodable_name": "under a name that is no text",
}
"""Why files of INPUT get no row, in words for a person. What may be a photo is not among them."""

_SHOWN_TYPES = 5
"""Extensions that are named; the most frequent ones."""


def passed_over_text(numbers: Mapping[str, int], extensions: Mapping[str, int]) -> str:
    """``4 hidden or of a system, 3 no photo by their first bytes (mov 2, none 1)``.

    Args:
        numbers: Files by a reason of ``PASSED_OVER``.
        extensions: Those of ``other_type`` by extension.
    """
    shown = sorted(extensions.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_TYPES]
    types = ", ".join(f"{name or 'none'} {number:,}" for name, number in shown)
    return ", ".join(
        f"{numbers[reason]:,} {words}" + (f" ({types})" if reason == "other_type" and types else "")
        for reason, words in PASSED_OVER.items()
        if numbers.get(reason)
    )


@dataclass(frozen=True)
class Reason:
    """A code and, where more is known, a detail; ``str`` gives the manifest's text."""

    code: str
    """A ``ReasonCode``, or one of the three that ``REASON_KINDS`` leaves out."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else str(self.code)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``."""
        code, _, detail = text.partition(":")
        return cls(code, detail.strip())

    @property
    def trouble(self) -> ReasonClass:
        """Where the trouble lies."""
        kind = REASON_KINDS.get(self.code)
        return "set" if kind is None else kind.trouble

    @property
    def remedy(self) -> str | None:
        """What a person can do."""
        kind = REASON_KINDS.get(self.code)
        return None if kind is None else kind.remedy

    def sentence(self) -> str:
        """The same in words."""
        kind = REASON_KINDS.get(self.code)
        meaning = self.code.replace("_", " ") if kind is None else kind.meaning
        return f"{meaning} ({self.detail})" if self.detail else meaning
