"""Newest uploads first, every person in turn; the same order whatever the listing's."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.order_of_work import order_of_work
from pipeline.records import PhotoSet, SourcePhoto


def photo_set(identity: str, modified_s: float | None, key: str = "") -> PhotoSet:
    photo = SourcePhoto(identity, f"file:///{key}", "images/x.png", 1, "1", modified_s)
    return PhotoSet(key or f"{identity}{modified_s}", identity, (photo,))


def test_a_person_with_many_photos_delays_another_one_by_a_set() -> None:
    many = [photo_set("ann", 1000.0 + n) for n in range(50)]
    ordered = order_of_work([*many, photo_set("bob", 5.0), photo_set("bob", 4.0)])
    assert [each.identity for each in ordered[:5]] == ["ann", "bob", "ann", "bob", "ann"]


def test_the_newest_upload_is_first_and_decides_for_its_set() -> None:
    old, new = photo_set("ann", 10.0), photo_set("bob", 30.0)
    mixed = PhotoSet("m", "cat", (*photo_set("cat", 1.0).photos, *photo_set("cat", 20.0).photos))
    assert order_of_work([old, mixed, new]) == [new, mixed, old]


def test_photos_without_a_time_come_last() -> None:
    unknown, old = photo_set("ann", None), photo_set("bob", 1.0)
    assert order_of_work([unknown, old]) == [old, unknown]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=20),
    st.integers(0, 2**32),
)
def test_nothing_is_lost_and_the_listing_does_not_matter(
    chosen: list[tuple[str, int]], seed: int
) -> None:
    sets = [photo_set(who, when, f"key{n}") for n, (who, when) in enumerate(chosen)]
    ordered = order_of_work(sets)
    assert sorted(each.key for each in ordered) == sorted(each.key for each in sets)
    random.Random(seed).shuffle(sets)
    assert order_of_work(sets) == ordered
