"""One spelling per place, and nothing that opens another place than it says."""

import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.storage.uris import folder_and_name, lies_below, normalise_uri, split_uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/in", "file:///data/in"),
        ("/data/in/", "file:///data/in"),
        ("/data//x/../in", "file:///data/in"),
        ("//data/in", "file:///data/in"),
        ("file:///data/in/", "file:///data/in"),
        ("FILE:///data/in", "file:///data/in"),
        ("/", "file:///"),
        ("/data/50% off #1?", "file:///data/50% off #1?"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/in/ann/", "s3://bucket/in/ann"),
        ("gs://bucket/in", "gs://bucket/in"),
        ("abfs://container@account.dfs.core.windows.net/in", None),
    ],
)
def test_each_place_has_one_spelling(text: str, expected: str | None) -> None:
    assert normalise_uri(text) == (expected or text)
    assert normalise_uri(normalise_uri(text)) == normalise_uri(text)


def test_relative_and_home_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert normalise_uri("in") == f"file://{tmp_path}/in"
    assert normalise_uri("~/in") == "file:///home/ann/in"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a path"),
        ("/in\n/out", "expected a path"),
        ("http://host/in", "'http' is not supported"),
        ("s3a://bucket/in", "'s3a' is not supported"),
        ("memory://in", "'memory' is not supported"),
        ("zip://a::s3://bucket/x.zip", "chains file systems"),
        ("simplecache::s3://bucket/x", "chains file systems"),
        ("s3:bucket/in", "write '://'"),
        ("file:/in", "write '://'"),
        ("file://host/in", "a file URI is absolute"),
        ("s3://", "names no bucket"),
        ("s3:///in", "names no bucket"),
        ("s3://key:secret@bucket/in", "must not carry credentials"),
        ("s3://bucket/in/../out", "have no meaning in a bucket"),
    ],
)
def test_other_places_are_refused_with_the_reason(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part.replace("(", r"\(")):
        normalise_uri(text)


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        normalise_uri("s3://key:secret@bucket/in")
    assert "secret" not in str(refusal.value)


def test_split_gives_scheme_bucket_and_path() -> None:
    assert split_uri("s3://bucket/in/ann") == ("s3", "bucket", "in/ann")
    assert split_uri("s3://bucket") == ("s3", "bucket", "")
    assert split_uri("file:///in/ann") == ("file", "", "/in/ann")


def test_below_is_by_whole_segments_and_through_links(tmp_path: Path) -> None:
    assert lies_below("s3://bucket/in/ann", "s3://bucket/in")
    assert lies_below("s3://bucket/in", "s3://bucket/in")
    assert lies_below("s3://bucket/in", "s3://bucket")
    assert not lies_below("s3://bucket/in-out", "s3://bucket/in")
    assert not lies_below("s3://bucket2/in", "s3://bucket")
    assert lies_below("file:///in", "file:///")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "in", tmp_path / "link")
    assert lies_below(f"file://{tmp_path}/link/out", f"file://{tmp_path}/in")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///data/in/1.jpg", ("file:///data/in", "1.jpg")),
        ("file:///photos.csv", ("file:///", "photos.csv")),
        ("s3://bucket/in/1.jpg", ("s3://bucket/in", "1.jpg")),
        ("s3://bucket/1.jpg", ("s3://bucket", "1.jpg")),
    ],
)
def test_an_object_lies_in_a_folder_that_can_be_opened(uri: str, expected: tuple[str, str]) -> None:
    assert folder_and_name(uri) == expected
    assert normalise_uri(expected[0]) == expected[0]
