"""Photo sets: every photo in exactly one, near-equal, independent of the listing's order."""

import random
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.form_sets import form_sets
from pipeline.records import PhotoSet, SourcePhoto


def photos_of(identity: str, count: int, size: int = 10) -> list[SourcePhoto]:
    return [
        SourcePhoto(identity, f"file:///in/{identity}/{n}.jpg", f"images/{n}.png", size, "1")
        for n in range(count)
    ]


def form(
    to_do: list[SourcePhoto],
    originals: list[SourcePhoto] | None = None,
    max_bytes: int = 10**9,
    min_photos: int = 4,
) -> list[PhotoSet]:
    by_identity: dict[str, list[SourcePhoto]] = {}
    for photo in originals or []:
        by_identity.setdefault(photo.identity, []).append(photo)
    return form_sets(
        to_do, by_identity, "m", max_photos=16, max_bytes=max_bytes, min_photos=min_photos
    )


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(0, 2**32))
def test_every_photo_is_in_one_set_of_near_equal_size(counts: list[int], seed: int) -> None:
    photos = [photo for n, count in enumerate(counts) for photo in photos_of(f"p{n}", count)]
    sets = form(photos)
    assert sorted(p.uri for s in sets for p in s.photos) == sorted(p.uri for p in photos)
    for n, count in enumerate(counts):
        sizes = [len(s.photos) for s in sets if s.identity == f"p{n}"]
        assert len(sizes) == -(-count // 16)
        assert max(sizes) - min(sizes) <= 1
    shuffled = photos.copy()
    random.Random(seed).shuffle(shuffled)
    assert form(shuffled) == sets


def test_photos_stand_in_order_of_their_hashes() -> None:
    (photo_set,) = form(photos_of("ann", 9))
    hashes = [sha256(photo.output_key.encode()).hexdigest() for photo in photo_set.photos]
    assert hashes == sorted(hashes)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(50, 200))
def test_sets_stay_below_the_byte_limit(sizes: list[int], max_bytes: int) -> None:
    photos = [SourcePhoto("ann", f"file:///{n}", "k", size, "1") for n, size in enumerate(sizes)]
    sets = form(photos, max_bytes=max_bytes)
    assert sum(len(s.photos) for s in sets) == len(sizes)
    for s in sets:
        assert len(s.photos) == 1 or sum(p.size_bytes for p in s.photos) <= max_bytes


def test_small_sets_are_filled_up_with_other_originals_of_the_person() -> None:
    ann, bob = photos_of("ann", 7), photos_of("bob", 7)
    (photo_set,) = form(ann[:1], ann + bob)
    assert photo_set.photos == (ann[0],)
    assert len(photo_set.references) == 3
    assert all(photo.identity == "ann" for photo in photo_set.references)
    assert ann[0] not in photo_set.references
    assert form(ann[:1], [*reversed(ann + bob)]) == [photo_set]


def test_sets_that_are_large_enough_or_alone_have_no_references() -> None:
    ann = photos_of("ann", 7)
    assert form(ann[:4], ann)[0].references == ()
    assert form(ann[:1], ann[:1])[0].references == ()
    assert form(ann[:1], ann, min_photos=0)[0].references == ()


def test_references_stay_below_the_byte_limit() -> None:
    ann = photos_of("ann", 7, size=10)
    assert len(form(ann[:1], ann, max_bytes=25)[0].references) == 1


def test_the_key_names_all_that_decides_the_work() -> None:
    ann = photos_of("ann", 7)
    keys = {form(ann[:1])[0].key, form(ann[:1], ann)[0].key, form(ann[:2])[0].key}
    newer = SourcePhoto("ann", ann[0].uri, ann[0].output_key, 10, "2")
    keys.add(form([newer])[0].key)
    keys.add(form_sets(ann[:1], {}, "n", max_photos=16, max_bytes=99, min_photos=4)[0].key)
    assert len(keys) == 5


def test_a_photo_set_survives_its_json() -> None:
    ann = photos_of("ann", 7)
    (photo_set,) = form(ann[:1], ann)
    assert PhotoSet.from_json(photo_set.to_json()) == photo_set
