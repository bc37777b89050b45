"""What of a photo set is worked on, and in which groups: encoded bytes in, no pixel decoded."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.files import PhotoLimits
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import PhotoSet, ReadPhoto, SourcePhoto
from pipeline.worker.set_inputs import (
    RefusedPhoto,
    SetInputs,
    WholePhoto,
    groups_within,
    sort_inputs,
)
from tests.sample_photos import jpeg_bytes

LIMITS = PhotoLimits()
GOOD = jpeg_bytes(100, 80)


def source(name: str, previous: bytes | None = None) -> SourcePhoto:
    """A photo whose content was ``previous`` when OUTPUT decided on it."""
    photo = SourcePhoto("ann", f"file:///in/{name}", f"images/{name}.png", 1, "1")
    if previous is None:
        return photo
    return dataclasses.replace(photo, previous_sha256=hashlib.sha256(previous).hexdigest())


def read(content: bytes) -> ReadPhoto:
    return ReadPhoto(content, hashlib.sha256(content).hexdigest())


def sort(
    photos: list[tuple[SourcePhoto, ReadPhoto]],
    references: list[tuple[SourcePhoto, ReadPhoto]],
    keep_references: bool = True,
) -> SetInputs:
    photo_set = PhotoSet(
        "k", "ann", tuple(one for one, _ in photos), tuple(one for one, _ in references)
    )
    reads = [each for _, each in [*photos, *references]]
    return sort_inputs(photo_set, reads, LIMITS, keep_references)


def names(photos: list[WholePhoto] | list[RefusedPhoto]) -> list[str]:
    return [photo.source.uri.rpartition("/")[2] for photo in photos]


def test_new_and_changed_photos_are_to_do_with_the_size_that_the_header_promises() -> None:
    inputs = sort([(source("new"), read(GOOD)), (source("changed", b"before"), read(GOOD))], [])
    assert names(inputs.to_do) == ["new", "changed"]
    assert [photo.num_pixels for photo in inputs.to_do] == [8000, 8000]
    assert (inputs.references, inputs.unchanged, inputs.refused) == ([], [], [])


def test_an_unchanged_photo_is_not_done_again_and_is_a_reference_before_the_plans() -> None:
    inputs = sort(
        [(source("same", GOOD), read(GOOD)), (source("new"), read(GOOD))],
        [(source("reference"), read(GOOD))],
    )
    assert names(inputs.to_do) == ["new"]
    assert names(inputs.references) == ["same", "reference"]
    assert [photo.source for photo in inputs.unchanged] == [source("same", GOOD)]
    assert [photo.index for photo in [*inputs.to_do, *inputs.references]] == [1, 0, 2]
    given = [(source("same", GOOD), read(GOOD))], [(source("reference"), read(GOOD))]
    assert sort(*given, keep_references=False).references == []


@pytest.mark.parametrize(
    ("given_as", "code"),
    [
        (read(b"no photo"), ReasonCode.NOT_AN_IMAGE),
        (ReadPhoto(None, None, Reason(ReasonCode.MISSING)), ReasonCode.MISSING),
        (ReadPhoto(None, None), ReasonCode.UNREADABLE),
    ],
)
def test_what_cannot_be_worked_on_is_refused_as_a_photo_and_left_out_as_a_reference(
    given_as: ReadPhoto, code: ReasonCode
) -> None:
    inputs = sort([(source("bad"), given_as)], [(source("reference"), given_as)])
    assert names(inputs.refused) == ["bad"]
    assert inputs.refused[0].reason.code == code
    assert (inputs.to_do, inputs.references, inputs.unchanged) == ([], [], [])


def test_a_bad_photo_that_did_not_change_keeps_its_earlier_decision() -> None:
    inputs = sort([(source("bad", b"no photo"), read(b"no photo"))], [])
    assert [photo.source for photo in inputs.unchanged] == [source("bad", b"no photo")]
    assert (inputs.to_do, inputs.references, inputs.refused) == ([], [], [])


def test_a_set_without_work_has_no_group() -> None:
    assert groups_within(sort([(source("same", GOOD), read(GOOD))], []), 10**6) == []


def whole(index: int, num_pixels: int) -> WholePhoto:
    return WholePhoto(source(str(index)), index, b"", "", num_pixels)


sizes = st.lists(st.integers(1, 60), max_size=12)


@given(sizes, sizes, st.integers(1, 150))
def test_groups_hold_every_photo_once_in_order_and_within_the_limit(
    of_photos: list[int], of_references: list[int], limit: int
) -> None:
    photos = [whole(index, size) for index, size in enumerate(of_photos)]
    references = [whole(len(photos) + index, size) for index, size in enumerate(of_references)]
    groups = groups_within(SetInputs(photos, references), limit)
    assert [photo for group in groups for photo in group.photos] == photos
    assert all(group.photos for group in groups)
    for group in groups:
        assert [one for one in references if one in group.references] == group.references
        kept = sum(one.num_pixels for one in group.references)
        total = kept + sum(one.num_pixels for one in group.photos)
        assert total <= limit or len(group.photos) == 1
        if len(groups) > 1 or total > limit:
            assert kept <= limit // 2
    if photos and sum(of_photos) + sum(of_references) <= limit:
        assert len(groups) == 1
        assert groups[0].references == references
