"""Output keys: injective, below OUTPUT, stable over time."""

import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog.output_keys import (
    MAX_KEY_BYTES,
    MAX_SEGMENT_BYTES,
    assign_output_keys,
    encode_segment,
    key_in_format,
    output_key,
    require_output_key,
)
from pipeline.config import OutputFormat
from pipeline.errors import ConfigurationError
from pipeline.records import SourcePhoto

segments = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="aA.%/~é ", max_size=200),
    st.sampled_from(["", ".", "..", "...", "%", "%2E", "~", "CON", "a" * 121, "ä" * 60]),
)


def photo(uri: str, key: str) -> SourcePhoto:
    return SourcePhoto("ann", uri, key, size_bytes=1, version="1")


def keys_of(photos: list[SourcePhoto]) -> dict[str, str]:
    return {each.uri: each.output_key for each in photos}


@given(segments)
def test_segment_is_one_safe_name(segment: str) -> None:
    encoded = encode_segment(segment)
    assert re.fullmatch(r"[A-Za-z0-9._%~-]+", encoded)
    assert not encoded.startswith(".")
    assert len(encoded) <= MAX_SEGMENT_BYTES


@given(segments, segments)
def test_different_segments_have_different_names(first: str, second: str) -> None:
    assert (encode_segment(first) == encode_segment(second)) == (first == second)


@given(segments, st.lists(segments, min_size=1, max_size=12))
def test_key_stays_below_images(identity: str, path: list[str]) -> None:
    key = output_key(identity, "/".join(path))
    assert key.startswith("images/")
    assert key.endswith(".png")
    assert all(part and not part.startswith(".") for part in key.split("/"))
    assert len(key) <= MAX_KEY_BYTES + len(".png")


@given(st.tuples(segments, segments), st.tuples(segments, segments))
def test_different_photos_have_different_keys(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert (output_key(*first) == output_key(*second)) == (first == second)


def test_ordinary_names_stay_readable() -> None:
    assert output_key("ann", "2024/1.jpg") == "images/ann/2024/1.jpg.png"
    assert output_key("Jörg K.", "a b.HEIC") == "images/J%C3%B6rg%20K./a%20b.HEIC.png"
    assert output_key("ann", "..") == "images/ann/%2E..png"


def test_same_stems_in_other_folders_and_extensions_are_different_photos() -> None:
    paths = ["a.jpg", "a.heic", "a.png", "2024/a.jpg", "2025/a.jpg", "2024%2Fa.jpg"]
    assert len({output_key("ann", path) for path in paths}) == len(paths)


def test_a_long_name_keeps_its_beginning_and_extension() -> None:
    encoded = encode_segment("x" * 300 + ".jpeg")
    assert re.fullmatch(r"x+~[0-9a-f]{8}\.jpeg", encoded)
    assert len(encoded) == MAX_SEGMENT_BYTES
    assert "%" not in re.sub("%[0-9A-F]{2}", "", encode_segment("ö" * 300))  # no half escape


def test_a_name_that_looks_like_a_cut_one_does_not_collide() -> None:
    cut = encode_segment("x" * 300)
    assert encode_segment(cut) != cut


@given(st.lists(st.text(alphabet="aAbB.", min_size=1, max_size=4), unique=True, max_size=8))
def test_assigned_keys_differ_in_any_letter_case(names: list[str]) -> None:
    photos = [photo(f"file:///in/ann/{name}", output_key("ann", name)) for name in names]
    assigned = assign_output_keys(photos, {})
    assert len({each.output_key.casefold() for each in assigned}) == len(names)
    assert [each.uri for each in assigned] == [each.uri for each in photos]


def test_the_order_of_a_listing_does_not_matter() -> None:
    photos = [photo(f"file:///{name}", f"images/{name}.png") for name in ("a", "A", "b", "c")]
    results = [keys_of(assign_output_keys(order, {})) for order in permutations(photos)]
    assert all(result == results[0] for result in results)
    assert results[0]["file:///b"] == "images/b.png"
    assert re.fullmatch(r"images/a~[0-9a-f]{8}\.png", results[0]["file:///a"])
    assert re.fullmatch(r"images/A~[0-9a-f]{8}\.png", results[0]["file:///A"])


def test_a_published_photo_keeps_its_key_when_a_colliding_one_arrives() -> None:
    old, new = (
        photo("file:///a.jpg", "images/a.jpg.png"),
        photo("file:///A.jpg", "images/A.jpg.png"),
    )
    first = keys_of(assign_output_keys([old], {}))
    second = keys_of(assign_output_keys([new, old], first))
    assert second[old.uri] == first[old.uri] == "images/a.jpg.png"
    assert re.fullmatch(r"images/A~[0-9a-f]{8}\.jpg\.png", second[new.uri])
    # The older one leaves INPUT, its output is still served; a third arrives.
    third = keys_of(assign_output_keys([new], second))
    assert third[new.uri] == second[new.uri]


def test_the_output_of_a_gone_photo_is_not_overwritten() -> None:
    held = {"file:///gone.jpg": "images/x.png"}
    (assigned,) = assign_output_keys([photo("file:///new.jpg", "images/X.png")], held)
    assert assigned.output_key.casefold() != "images/x.png"


def test_given_keys_are_kept_and_others_make_room() -> None:
    chosen, other = photo("s3://b/1", "images/p/1.png"), photo("s3://b/2", "images/P/1.png")
    keys = keys_of(assign_output_keys([other, chosen], {}, given={"s3://b/1"}))
    assert keys["s3://b/1"] == "images/p/1.png"
    assert keys["s3://b/2"].startswith("images/P/1~")


def test_a_given_key_of_another_photo_is_refused() -> None:
    photos = [photo("s3://b/1", "images/p/1.png"), photo("s3://b/2", "images/P/1.png")]
    with pytest.raises(ConfigurationError, match="already that of another photo"):
        assign_output_keys(photos, {}, given={"s3://b/1", "s3://b/2"})


@pytest.mark.parametrize(
    "key",
    [
        "images/../x.png",
        "/images/x.png",
        "images//x.png",
        "manifest/x.png",
        "images/.hidden.png",
        "images/a\\b.png",
        "images/a\0.png",
        "images/" + "x" * 250 + ".png",
        "images/x.txt",
        "images/x",
        "",
    ],
)
def test_given_keys_outside_images_are_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="below images/"):
        require_output_key(key)


def test_a_normal_given_key_is_accepted() -> None:
    assert require_output_key("images/team a/1.png") == "images/team a/1.png"


@pytest.mark.parametrize(
    ("name", "output_format", "expected"),
    [
        ("1.JPG", "same", "1.JPG"),
        ("1.heic", "same", "1.heic"),
        ("1.HIF", "same", "1.HIF"),
        ("1.jfif", "same", "1.jfif"),
        ("1.jpe", "same", "1.jpe"),
        ("1.MPO", "same", "1.MPO"),
        ("1.jpe", "jpeg", "1.jpe"),
        ("1.gif", "same", "1.gif.png"),
        ("raw", "same", "raw"),
        ("1.jpg", "png", "1.jpg.png"),
        ("1.png", "png", "1.png.png"),
        ("1.jpg", "webp", "1.jpg.webp"),
        ("1.webp", "webp", "1.webp"),
        ("1.jpeg", "jpeg", "1.jpeg"),
        ("1.png", "jpeg", "1.png.jpg"),
    ],
)
def test_keys_end_as_the_format_does(name: str, output_format: OutputFormat, expected: str) -> None:
    assert key_in_format(output_key("ann", name), output_format) == f"images/ann/{expected}"


def test_a_format_without_encoder_gets_another_ending() -> None:
    key = output_key("ann", "1.heic")
    assert key_in_format(key, "same", lambda kind: kind != "HEIF") == "images/ann/1.heic.jpg"


def test_collisions_keep_the_ending() -> None:
    photos = [photo(f"file:///{n}", f"images/{n}.jpg") for n in ("a", "A")]
    for assigned in assign_output_keys(photos, {}):
        assert re.fullmatch(r"images/[aA]~[0-9a-f]{8}\.jpg", assigned.output_key)
