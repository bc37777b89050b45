"""One photo against its newest manifest row: earlier decisions stand unless asked for again."""

from typing import Any

import pytest

from pipeline.config import OnMethodChange
from pipeline.planning.decisions import DecisionRules
from pipeline.records import SourcePhoto
from tests.source_states import METHOD, state_of

PHOTO = SourcePhoto("ann", "file:///in/ann/1.jpg", "images/ann/1.jpg.png", 10, "version-1")


@pytest.mark.parametrize(
    ("status", "reason", "options", "decision"),
    [
        ("failed", "GradientError", {}, "standing_failure"),
        ("failed", "GradientError", {"retry_failed": True}, "retry"),
        ("failed", "GradientError", {"retry_quarantined": True}, "standing_failure"),
        ("quarantined", "crashed_3_times", {}, "standing_failure"),
        ("quarantined", "crashed_3_times", {"retry_failed": True}, "standing_failure"),
        ("quarantined", "crashed_3_times", {"retry_quarantined": True}, "retry"),
        ("skipped", "no_face", {"retry_failed": True}, "unchanged"),
        ("skipped", "too_many_pixels: 1 x 1", {}, "unchanged"),
        ("skipped", "too_many_pixels: 1 x 1", {"retry_failed": True}, "retry"),
        ("skipped", "unreadable: denied", {}, "retry"),
        ("skipped", "missing: gone", {}, "retry"),
        ("layer2_only", "no checkpoint", {"retry_failed": True}, "unchanged"),
        ("source_gone", None, {}, "returned"),
        ("source_gone", None, {"reprotect": frozenset([PHOTO.uri])}, "new"),
    ],
)
def test_earlier_decisions_stand_unless_asked_for_again(
    status: str, reason: str | None, options: dict[str, Any], decision: str
) -> None:
    rules = DecisionRules(METHOD, **options)
    assert rules.decide(PHOTO, state_of(PHOTO, status=status, reason=reason)) == decision


def test_a_photo_that_is_back_is_new_where_nothing_of_it_stands() -> None:
    for changes in ({"output_key": None}, {"version": "version-0"}, {"method_digest": "other"}):
        state = state_of(PHOTO, status="source_gone", **changes)
        assert DecisionRules(METHOD).decide(PHOTO, state) == "new"
    other = state_of(PHOTO, status="source_gone", method_digest="other")
    assert DecisionRules(METHOD, "keep").decide(PHOTO, other) == "returned"
    gone = state_of(PHOTO, status="source_gone")
    assert DecisionRules(METHOD).previous_sha256(gone) == "sha of the original"


@pytest.mark.parametrize("status", ["failed", "skipped", "quarantined"])
def test_content_counts_as_decided_only_where_it_was_protected(status: str) -> None:
    rules = DecisionRules(METHOD)
    assert rules.previous_sha256(state_of(PHOTO)) == "sha of the original"
    assert rules.previous_sha256(state_of(PHOTO, status=status)) is None
    assert rules.previous_sha256(state_of(PHOTO, method_digest="other")) is None


def test_a_photo_is_new_unchanged_or_changed() -> None:
    rules = DecisionRules(METHOD)
    assert rules.decide(PHOTO, None) == "new"
    assert rules.decide(PHOTO, state_of(PHOTO)) == "unchanged"
    assert rules.decide(PHOTO, state_of(PHOTO, version="version-0")) == "changed"


@pytest.mark.parametrize(
    ("on_method_change", "same_version", "another_version"),
    [
        ("refuse", "refused", "refused"),
        ("keep", "unchanged", "changed"),
        ("reprotect", "method_changed", "method_changed"),
    ],
)
def test_another_method_is_a_persons_decision(
    on_method_change: OnMethodChange, same_version: str, another_version: str
) -> None:
    rules = DecisionRules("method-2", on_method_change)
    assert rules.decide(PHOTO, state_of(PHOTO)) == same_version
    assert rules.decide(PHOTO, state_of(PHOTO, version="version-0")) == another_version
