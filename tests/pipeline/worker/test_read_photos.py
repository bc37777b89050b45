"""Reading: bytes or a reason per photo; the store's troubles are told apart."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings, load_config
from pipeline.errors import StoreDenied, StoreThrottled
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.records import PhotoSet, ReadPhoto, SourcePhoto
from pipeline.storage.store import Store
from pipeline.worker.read_photos import photos_of_row, read_photo_set, read_row
from tests.permissions import forbidden
from tests.sample_photos import jpeg_bytes, write_album

MAX_BYTES = 100_000


def photo_set_of(folder: Path, *names: str, references: tuple[str, ...] = ()) -> PhotoSet:
    def photo(name: str) -> SourcePhoto:
        return SourcePhoto("ann", f"file://{folder}/{name}", f"images/{name}.png", 1, "1")

    return PhotoSet("key", "ann", tuple(map(photo, names)), tuple(map(photo, references)))


def reason_codes(reads: list[ReadPhoto]) -> list[str | None]:
    return [read.reason.code if read.reason else None for read in reads]


def test_photos_and_references_are_read_in_order(tmp_path: Path) -> None:
    contents = [jpeg_bytes(seed=n) for n in range(3)]
    write_album(tmp_path, {f"{n}.jpg": content for n, content in enumerate(contents)})
    reads = read_photo_set(
        photo_set_of(tmp_path, "2.jpg", "0.jpg", references=("1.jpg",)), MAX_BYTES
    )
    assert [read.content for read in reads] == [contents[2], contents[0], contents[1]]
    assert [read.sha256 for read in reads] == [sha256(contents[n]).hexdigest() for n in (2, 0, 1)]


def test_every_trouble_is_that_photos_own(tmp_path: Path) -> None:
    write_album(tmp_path, {"good.jpg": jpeg_bytes(), "empty.jpg": b"", "big.jpg": bytes(100_001)})
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    names = ["good.jpg", "empty.jpg", "big.jpg", "gone.jpg", "folder.jpg", "dangling.jpg"]
    reads = read_photo_set(photo_set_of(tmp_path, *names, "loop.jpg", "x" * 300), MAX_BYTES)
    assert reason_codes(reads)[:6] == [
        None, "empty_file", "too_many_bytes", "missing", "missing", "missing",
    ]  # fmt: skip
    assert all(reason in ("missing", "unreadable") for reason in reason_codes(reads)[6:])
    assert not any(read.cause for read in reads)
    assert [read.content is None for read in reads] == [False] + [True] * 7


def test_links_are_followed_only_below_the_roots(tmp_path: Path) -> None:
    write_album(tmp_path, {"in/bob/1.jpg": jpeg_bytes(), "secret.jpg": jpeg_bytes(seed=1)})
    (tmp_path / "in/ann").mkdir()
    (tmp_path / "in/ann/inside.jpg").symlink_to(tmp_path / "in/bob/1.jpg")
    (tmp_path / "in/ann/outside.jpg").symlink_to(tmp_path / "secret.jpg")
    photo_set = photo_set_of(tmp_path / "in/ann", "inside.jpg", "outside.jpg")
    reads = read_photo_set(photo_set, MAX_BYTES, roots=(f"file://{tmp_path}/in",))
    assert reason_codes(reads) == [None, "missing"]


def test_a_file_without_permission_is_that_photos_trouble(tmp_path: Path) -> None:
    write_album(tmp_path, {"a.jpg": jpeg_bytes(), "b.jpg": jpeg_bytes()})
    with forbidden(tmp_path / "b.jpg"):
        reads = read_photo_set(photo_set_of(tmp_path, "a.jpg", "b.jpg"), MAX_BYTES)
    assert reason_codes(reads) == [None, "unreadable"]


def refuse(*names: str) -> Any:
    def read(uri: str, max_bytes: int, root: str | None) -> bytes:
        if uri.rpartition("/")[2] in names:
            raise StoreDenied("reading: AccessDenied")
        return b"content"

    return read


@pytest.mark.parametrize(
    ("place", "denied", "reasons", "causes"),
    [
        ("s3://b/in", ["1"], ["unreadable", None], [None, None]),
        ("s3://b/in", ["1", "2"], [None, None], ["store_denied"] * 2),
        ("file:///in", ["1", "2"], [None, None], ["store_denied"] * 2),
    ],
)
def test_denied_access_to_all_photos_is_the_environments_trouble(
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    denied: list[str],
    reasons: list[str | None],
    causes: list[str | None],
) -> None:
    monkeypatch.setattr("pipeline.worker.read_photos.read_uri", refuse(*denied))
    photos = tuple(SourcePhoto("ann", f"{place}/{n}", "k", 1, "1") for n in (1, 2))
    reads = read_photo_set(PhotoSet("key", "ann", photos), MAX_BYTES)
    assert reason_codes(reads) == reasons
    assert [read.cause for read in reads] == causes


@pytest.mark.parametrize(
    ("place", "reason", "cause"),
    [("file:///in", "unreadable", None), ("s3://b/in", None, "store_denied")],
)
def test_one_denied_photo_alone(
    monkeypatch: pytest.MonkeyPatch, place: str, reason: str | None, cause: str | None
) -> None:
    monkeypatch.setattr("pipeline.worker.read_photos.read_uri", refuse("1"))
    photo_set = PhotoSet("key", "ann", (SourcePhoto("ann", f"{place}/1", "k", 1, "1"),))
    (read,) = read_photo_set(photo_set, MAX_BYTES)
    assert (reason_codes([read]), read.cause) == ([reason], cause)


def test_a_throttled_store_is_the_environments_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def throttle(*_: Any) -> bytes:
        raise StoreThrottled("reading: SlowDown")

    monkeypatch.setattr("pipeline.worker.read_photos.read_uri", throttle)
    reads = read_photo_set(photo_set_of(Path("/in"), "1.jpg"), MAX_BYTES)
    assert reads == [ReadPhoto(None, None, cause="store_throttled")]


def test_an_input_that_is_not_mounted_here_is_the_environments_trouble(tmp_path: Path) -> None:
    root = tmp_path / "not-mounted"
    reads = read_photo_set(photo_set_of(root / "ann", "1.jpg"), MAX_BYTES, (f"file://{root}",))
    assert reads == [ReadPhoto(None, None, cause="store_unreachable")]


def test_rows_carry_everything_through_arrow(tmp_path: Path) -> None:
    write_album(tmp_path, {"a.jpg": jpeg_bytes(), "b.jpg": b"ends in zeros\0\0", "c.jpg": b""})
    photo_set = photo_set_of(tmp_path, "a.jpg", "b.jpg", references=("c.jpg", "gone.jpg"))
    row = read_row({"photo_set": photo_set.to_json()}, max_photo_bytes=MAX_BYTES)
    all_bad = read_row(
        {"photo_set": photo_set_of(tmp_path, "gone.jpg").to_json()}, max_photo_bytes=MAX_BYTES
    )
    tables = [pa.Table.from_pylist([each]) for each in (row, all_bad)]
    assert tables[0].schema == tables[1].schema
    (again,) = tables[0].to_pylist()
    assert photos_of_row(again) == (photo_set, read_photo_set(photo_set, MAX_BYTES))


def test_a_photo_that_changed_since_the_plan_is_read_as_it_is(tmp_path: Path) -> None:
    """Its row has the planned version, so that the next run looks again and finds it unchanged."""
    write_album(tmp_path, {"in/ann/1.jpg": jpeg_bytes()})
    catalog = read_catalog(str(tmp_path / "in"), OperationSettings())
    (photo_set,) = plan_against_output(
        catalog, Store(str(tmp_path / "out")), load_config(), DecisionRules("m")
    ).photo_sets
    newer = jpeg_bytes(seed=1, height=200)
    (tmp_path / "in/ann/1.jpg").write_bytes(newer)
    (read,) = read_photo_set(photo_set, MAX_BYTES, catalog.roots)
    assert (read.content, read.sha256) == (newer, sha256(newer).hexdigest())
