"""One photo and what OUTPUT remembers of it -> whether it is to do, and why.

Knows the manifest's statuses. Knows nothing of sets, stores or pixels.
"""

from dataclasses import dataclass
from typing import Literal, Self

from pipeline.config import OnMethodChange
from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.options import RunOptions
from pipeline.output.manifest import SourceState
from pipeline.reasons import Reason
from pipeline.records import MISSING_VERSION, SourcePhoto

Decision = Literal[
    "unchanged",
    "returned",
    "new",
    "changed",
    "method_changed",
    "retry",
    "standing_failure",
    "refused",
]
"""``returned``: it was gone, and is back as it was; ``standing_failure``: failed or quarantined,
and not asked for again; ``refused``: made with another method, and nobody said what to do about
that."""


@dataclass(frozen=True)
class DecisionRules:
    """What a person asked for, and the method of this run."""

    method_digest: str
    on_method_change: OnMethodChange = "refuse"
    retry_failed: bool = False
    """Also photos skipped for what their file is, e.g. ``too_many_pixels``: limits may differ."""
    retry_quarantined: bool = False
    reprotect: frozenset[str] = frozenset()
    """Source URIs of photos that are to do again whatever was decided on them."""

    @classmethod
    def asked_for(cls, options: RunOptions, method_digest: str) -> Self:
        """What a command's options say; ``reprotect`` is for whoever knows OUTPUT to fill in."""
        return cls(
            method_digest,
            options.on_method_change,
            options.retry_failed,
            options.retry_quarantined,
        )

    def decide(self, photo: SourcePhoto, state: SourceState | None) -> Decision:
        """Decides for one photo of the catalog; ``state`` is its newest manifest row."""
        if state is None:
            return "new"
        if state.status == "source_gone":
            if photo.version == MISSING_VERSION:
                return "unchanged"
            stands = state.method_digest == self.method_digest or self.on_method_change == "keep"
            is_back = photo.version == state.version and state.output_key is not None and stands
            return "returned" if is_back and photo.uri not in self.reprotect else "new"
        if photo.uri in self.reprotect and photo.version != MISSING_VERSION:
            return "retry"
        if state.method_digest not in (None, self.method_digest):
            if self.on_method_change == "refuse":
                return "refused"
            if self.on_method_change == "reprotect":
                return "method_changed"
        if photo.version != state.version:
            return "changed"
        return self._decide_again(photo, state)

    def previous_sha256(self, state: SourceState | None) -> str | None:
        """Content with this sha256 is already protected by this very method; None: none is.

        Also of a photo that is gone, as long as its protected photo is kept.
        """
        if (
            state is None
            or (state.status not in PROTECTED_STATUSES and not _was_protected(state))
            or state.method_digest != self.method_digest
        ):
            return None
        return state.sha256

    def _decide_again(self, photo: SourcePhoto, state: SourceState) -> Decision:
        """The decision on a photo that is as it was, under a method that stands."""
        if state.status == "failed":
            return "retry" if self.retry_failed else "standing_failure"
        if state.status == "quarantined":
            return "retry" if self.retry_quarantined else "standing_failure"
        trouble = Reason.parse(state.reason or "").trouble
        passing = trouble == "access" or (trouble == "file" and self.retry_failed)
        if state.status == "skipped" and passing and photo.version != MISSING_VERSION:
            return "retry"
        return "unchanged"


def _was_protected(state: SourceState) -> bool:
    """Whether a photo that is gone left a protected one behind."""
    return state.status == "source_gone" and state.output_key is not None
