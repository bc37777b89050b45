"""Newest uploads first, every person in turn; the same order whatever the listing's."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.planned_sets import PlannedSets
from pipeline.records import PhotoSet, SourcePhoto


def photo_set(identity: str, modified_s: float | None, key: str = "") -> PhotoSet:
    photo = SourcePhoto(identity, f"file:///{key}", "images/x.png", 1, "1", modified_s)
    return PhotoSet(key or f"{identity}{modified_s}", identity, (photo,))


def test_a_person_with_many_photos_delays_another_one_by_a_set() -> None:
    many = [photo_set("ann", 1000.0 + n) for n in range(50)]
    ordered = PlannedSets([*many, photo_set("bob", 5.0), photo_set("bob", 4.0)])
    assert [each.identity for each in ordered[:5]] == ["ann", "bob", "ann", "bob", "ann"]


def test_the_newest_upload_is_first_and_decides_for_its_set() -> None:
    old, new = photo_set("ann", 10.0), photo_set("bob", 30.0)
    mixed = PhotoSet("m", "cat", (*photo_set("cat", 1.0).photos, *photo_set("cat", 20.0).photos))
    assert PlannedSets([old, mixed, new]) == [new, mixed, old]


def test_photos_without_a_time_come_last() -> None:
    unknown, old = photo_set("ann", None), photo_set("bob", 1.0)
    assert PlannedSets([unknown, old]) == [old, unknown]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=20),
    st.integers(0, 2**32),
)
def test_nothing_is_lost_and_the_listing_does_not_matter(
    chosen: list[tuple[str, int]], seed: int
) -> None:
    sets = [photo_set(who, when, f"key{n}") for n, (who, when) in enumerate(chosen)]
    ordered = PlannedSets(sets)
    assert sorted(each.key for each in ordered) == sorted(each.key for each in sets)
    random.Random(seed).shuffle(sets)
    assert PlannedSets(sets) == ordered


def test_sets_are_taken_by_windows_and_each_once() -> None:
    sets = PlannedSets(photo_set("ann", 100.0 - n, f"key{n}") for n in range(7))
    first, after = sets.window(3)
    assert [each.key for each in first] == ["key0", "key1", "key2"]
    sets.decide("key1")
    sets.decide("key4")
    second, after = sets.window(3, after)
    assert [each.key for each in second] == ["key3", "key5", "key6"]
    assert sets.window(3, after) == ([], after)
    assert [each.key for each in sets.undecided()] == ["key0", "key2", "key3", "key5", "key6"]
    assert sets.find("key4") is None
    assert sets.find("key5") == sets[5]
    assert (sets.num_undecided(), sets.oldest_undecided_upload()) == ((5, 5), 94.0)


def test_a_part_of_a_plan_knows_its_own_sums() -> None:
    sets = PlannedSets([*(photo_set("ann", float(n), f"a{n}") for n in range(1, 4))])
    sets.add([photo_set("bob", 9.0, "b")])
    sets.put_in_order()
    assert [each.key for each in sets] == ["b", "a3", "a2", "a1"]
    head, tail = sets[:2], sets[2:]
    assert ([*head], [*tail]) == ([*sets[0:2]], [sets[2], sets[-1]])
    assert head.totals()[:5] == (2, 0, 2, 2, 2)
    assert (tail.totals().num_photos, tail.totals().oldest_upload_s) == (2, 1.0)
    assert (head.find("a1"), tail.find("a1")) == (None, sets[3])
    assert len(sets[4:]) == len(PlannedSets()) == 0
    assert PlannedSets().totals() == (0, 0, 0, 0, 0, None)
