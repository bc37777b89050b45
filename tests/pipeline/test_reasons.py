"""Reasons: what the manifest holds, and what a person reads."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.reasons import REASON_KINDS, Reason, ReasonCode


def test_every_code_has_its_meaning_and_no_meaning_is_left_over() -> None:
    assert set(REASON_KINDS) == set(ReasonCode)
    assert len({kind.meaning for kind in REASON_KINDS.values()}) == len(ReasonCode)


def test_a_code_that_manifests_hold_is_never_renamed() -> None:
    assert {
        "empty_file", "not_an_image", "truncated", "corrupt", "too_many_bytes", "too_many_pixels",
        "too_small", "unsupported_mode", "missing", "unreadable", "no_face", "staged_data_lost",
        "earlier_row_lost", "not in INPUT any more", "not_reached",
    } <= {code.value for code in ReasonCode}  # fmt: skip


@given(st.sampled_from(ReasonCode), st.text().map(str.strip))
def test_a_reason_survives_the_manifest(code: ReasonCode, detail: str) -> None:
    reason = Reason(code, detail)
    assert Reason.parse(str(reason)) == reason


def test_only_what_lies_in_the_file_or_in_reaching_it_may_be_lifted() -> None:
    assert Reason(ReasonCode.TOO_MANY_PIXELS).trouble == "file"
    assert Reason(ReasonCode.MISSING).trouble == "access"
    assert Reason(ReasonCode.NO_FACE).trouble == "content"
    assert Reason("RuntimeError").trouble == "set"


def test_a_reason_in_words_has_its_detail() -> None:
    reason = Reason(ReasonCode.TOO_SMALL, "20 x 90, each side needs 32 pixels")
    assert reason.sentence() == (
        "a side is shorter than operation.min_photo_side_px (20 x 90, each side needs 32 pixels)"
    )
    assert reason.remedy == "lower that and run with --retry-failed"
    assert Reason("crashed_3_times").sentence() == "crashed 3 times"
    assert Reason("crashed_3_times").remedy is None
