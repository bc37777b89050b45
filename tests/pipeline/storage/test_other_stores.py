"""Other buckets, through what all fsspec file systems share; fsspec's own one in memory."""

import sys
from collections.abc import Iterator

import fsspec
import pytest

from pipeline.errors import ConfigurationError
from pipeline.storage.other import FsspecPrefix
from pipeline.storage.store import ObjectTooLarge, Skipped, open_store


def no_name(name: str) -> bool:
    """Hides nothing."""
    return False


@pytest.fixture
def backend() -> Iterator[FsspecPrefix]:
    yield FsspecPrefix("memory", "bucket", "in")
    fsspec.filesystem("memory").store.clear()


def test_objects_are_written_once_found_copied_and_deleted(backend: FsspecPrefix) -> None:
    backend.put("ann/1.jpg", b"one", {})
    backend.put_new("ann/2.jpg", b"two", {})
    with pytest.raises(FileExistsError):
        backend.put_new("ann/2.jpg", b"other", {})
    backend.copy("ann/1.jpg", "bob/b/3.jpg", {})
    assert backend.get("ann/2.jpg", 3) == b"two"
    assert backend.get("bob/b/3.jpg", None) == b"one"
    with pytest.raises(ObjectTooLarge):
        backend.get("ann/2.jpg", 2)
    assert backend.get_part("ann/2.jpg", 0, 2) == b"tw"
    assert backend.get_part("ann/2.jpg", 1, 5) == b"wo"
    keys = [info.key for info in backend.scan("", Skipped(), no_name)]
    assert sorted(keys) == ["ann/1.jpg", "ann/2.jpg", "bob/b/3.jpg"]
    assert [info.key for info in backend.scan("ann/2", Skipped(), no_name)] == ["ann/2.jpg"]
    assert [*backend.scan("none/", Skipped(), no_name)] == []
    assert sorted(backend.folders("")) == ["ann", "bob"]
    assert [*backend.folders("bob/")] == ["b"]
    assert [*backend.folders("none/")] == []
    backend.remove(["ann/1.jpg", "none"])
    assert backend.head("ann/1.jpg") is None
    assert backend.head("ann") is None


def test_an_object_is_described(backend: FsspecPrefix) -> None:
    backend.put("ann/1.jpg", b"one", {})
    info = backend.head("ann/1.jpg")
    assert info is not None
    assert (info.key, info.size) == ("ann/1.jpg", 3)
    assert info.modified > 1.7e9
    assert info.version
    assert backend.sha256("ann/1.jpg").startswith("7692c3ad")


def test_a_listing_that_fails_in_part_fails(
    backend: FsspecPrefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.put("ann/1.jpg", b"one", {})
    backend.put("bob/1.jpg", b"two", {})
    fs = fsspec.filesystem("memory")
    listed = fs.ls

    def lose(path: str, detail: bool = True, **options: object) -> object:
        if path.endswith("bob"):
            raise ConnectionResetError
        return listed(path, detail, **options)

    monkeypatch.setattr(type(fs), "ls", staticmethod(lose))
    with pytest.raises(ConnectionResetError):
        [*backend.scan("", Skipped(), no_name)]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigurationError, match=r"dladiff\[gcs\]"):
        open_store("gs://bucket/in").read("1.jpg")
