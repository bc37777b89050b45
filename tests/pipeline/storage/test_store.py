"""What every store promises, on a local folder and on a real S3 server."""

import hashlib
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import (
    ConfigurationError,
    EnvironmentTrouble,
    StoreDenied,
    StoreUnreachable,
)
from pipeline.storage.store import (
    HASH_METADATA,
    HashMismatch,
    ObjectTooLarge,
    Skipped,
    Store,
    open_store,
    read_uri,
)
from pipeline.storage.uris import split_uri
from tests.permissions import forbidden


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_written_is_read_back_and_replaced(store: Store) -> None:
    for data in (b"", b"one", os.urandom(7 * 1024**2)):
        store.write("a b/ü/1%20#?.jpg", data)
        assert store.read("a b/ü/1%20#?.jpg") == data
        info = store.info("a b/ü/1%20#?.jpg")
        assert info is not None
        assert info.size == len(data)
        assert abs(info.modified - time.time()) < 60
        assert store.sha256_of("a b/ü/1%20#?.jpg") == sha256(data)
        assert store.sha256_of("a b/ü/1%20#?.jpg", read=True) == sha256(data)


def test_a_missing_object_is_a_missing_file(store: Store) -> None:
    store.write("folder/file", b"x")
    for key in ("none", "folder", "folder/file/none"):
        assert store.info(key) is None
        assert not store.exists(key)
        with pytest.raises(FileNotFoundError):
            store.read(key)
        with pytest.raises(FileNotFoundError):
            store.sha256_of(key)
    store.delete(["none", "folder/none"])


def test_reading_stops_at_the_bound(store: Store) -> None:
    store.write("photo", b"12345")
    assert store.read("photo", max_bytes=5) == b"12345"
    with pytest.raises(ObjectTooLarge) as trouble:
        store.read("photo", max_bytes=4)
    assert (trouble.value.size, trouble.value.max_bytes) == (5, 4)
    assert pickle.loads(pickle.dumps(trouble.value)).size == 5


def test_the_first_bytes_are_read_alone(store: Store) -> None:
    store.write("photo", b"\xff\xd8\xff" + os.urandom(100_000))
    store.write("short", b"12")
    store.write("empty", b"")
    assert store.read_start("photo", 3) == b"\xff\xd8\xff"
    assert store.read_start("short", 3) == b"12"
    assert store.read_part("photo", 1, 2) == b"\xd8\xff"
    assert store.read_part("photo", 100_001, 9) == store.read("photo")[100_001:]
    assert store.read_part("short", 2, 3) == b""
    many = bytes(range(256)) * 20_000  # more than one read of a connection gives
    store.write("many", many)
    assert store.read_part("many", 7, len(many) - 7) == many[7:]
    assert store.read_part("many", 1_000_003, 3_000_000) == many[1_000_003:4_000_003]
    assert store.read_start("empty", 3) == b""
    with pytest.raises(FileNotFoundError):
        store.read_start("none", 3)


def test_the_version_changes_with_the_content_and_agrees_with_the_listing(store: Store) -> None:
    store.write("photo", b"one")
    before = store.info("photo")
    (listed,) = store.list()
    assert before is not None
    assert (listed.version, listed.size) == (before.version, before.size)
    time.sleep(0.01)
    store.write("photo", b"two")
    after = store.info("photo")
    assert after is not None
    assert after.version != before.version


def test_listing_finds_all_below_a_prefix_in_order(store: Store) -> None:
    keys = sorted(
        f"{folder}/{name}" for folder in ("a", "a/b", "c") for name in ("1", "2", "x.png")
    )
    for key in random.sample(keys, len(keys)):
        store.write(key, key.encode())
    assert sorted(info.key for info in store.list()) == keys
    assert [info.key for info in store.list("c/")] == ["c/1", "c/2", "c/x.png"]
    assert [info.key for info in store.list("a/b/x")] == ["a/b/x.png"]
    assert [*store.list("none/")] == []
    assert sorted(store.folders()) == ["a", "c"]
    assert [*store.folders("a/")] == ["b"]
    assert [*store.folders("none/")] == []


def test_listing_sees_what_was_written_a_moment_ago(store: Store) -> None:
    assert [*store.list("locks/")] == []
    store.write("locks/1", b"x")
    assert [info.key for info in store.list("locks/")] == ["locks/1"]
    store.delete(["locks/1"])
    assert [*store.list("locks/")] == []


def test_a_listing_of_more_than_a_page_is_complete(s3_prefix: str, s3_client: Any) -> None:
    _, bucket, prefix = split_uri(s3_prefix)
    for number in range(1005):
        s3_client.put_object(Bucket=bucket, Key=f"{prefix}/{number:04d}", Body=b"x")
    s3_client.put_object(Bucket=bucket, Key=f"{prefix}/folder/", Body=b"")
    store = Store(s3_prefix)
    assert [info.key for info in store.list()] == [f"{number:04d}" for number in range(1005)]
    store.delete(info.key for info in store.list())
    assert [*store.list()] == []


def test_of_racing_writers_exactly_one_creates(store: Store) -> None:
    for number in range(3 if store.uri.startswith("file") else 1):
        barrier = threading.Barrier(12)
        winners: list[int] = []

        def race(writer: int, key: str, barrier: threading.Barrier, winners: list[int]) -> None:
            own = pickle.loads(pickle.dumps(store))
            own.root_exists()  # connected before the start
            barrier.wait()
            if own.create_exclusive(key, f"writer {writer}".encode()):
                winners.append(writer)

        key = f"commits/{number}.json"
        threads = [
            threading.Thread(target=race, args=(writer, key, barrier, winners))
            for writer in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        assert store.read(key) == f"writer {winners[0]}".encode()


def test_of_racing_processes_exactly_one_creates(local_store: Store, tmp_path: Path) -> None:
    program = (
        "import sys, time, os\n"
        "from pipeline.storage.store import Store\n"
        "store, start = Store(sys.argv[1]), float(sys.argv[2])\n"
        "time.sleep(max(0, start - time.time()))\n"
        "print(store.create_exclusive('commits/1.json', sys.argv[3].encode()))\n"
    )
    start = str(time.time() + 1.5)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, local_store.uri, start, f"writer {number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert Counter(answers) == {"True": 1, "False": 5}
    winner = answers.index("True")
    assert local_store.read("commits/1.json") == f"writer {winner}".encode()
    assert sorted(path.name for path in (tmp_path / "store" / "commits").iterdir()) == ["1.json"]


def test_a_writer_whose_answer_was_lost_learns_that_it_won(store: Store) -> None:
    assert store.create_exclusive("commits/1", b"mine")
    assert store.create_exclusive("commits/1", b"mine")
    assert not store.create_exclusive("commits/1", b"other")
    assert not store.create_exclusive("commits/1", b"mine and more")
    assert store.read("commits/1") == b"mine"


def test_the_probe_accepts_a_store_that_honours_exclusive_creation(store: Store) -> None:
    assert store.probe_exclusive_creation()
    assert [*store.list()] == []


def test_the_probe_finds_a_store_that_overwrites(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_store._backend, "put_new", local_store._backend.put)
    assert not local_store.probe_exclusive_creation()


def test_the_probe_finds_a_file_system_without_hard_links(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert not local_store.probe_exclusive_creation()
    alone = Store(local_store.uri, single_writer=True)
    assert alone.create_exclusive("commits/1", b"mine")
    assert not alone.create_exclusive("commits/1", b"other")
    assert alone.read("commits/1") == b"mine"


def test_publishing_copies_the_promised_bytes_with_their_hash(store: Store) -> None:
    data = os.urandom(300_000)
    store.write("runs/1/data/0.png", data)
    store.write("images/ann/1.png", b"of an earlier run")
    store.copy_published("runs/1/data/0.png", "images/ann/1.png", sha256(data))
    assert store.read("images/ann/1.png") == data
    assert store.sha256_of("images/ann/1.png") == sha256(data)
    assert store.exists("runs/1/data/0.png")


def test_publishing_refuses_other_bytes_than_promised(store: Store) -> None:
    store.write("staged.png", b"damaged")
    store.write("images/1.png", b"good")
    with pytest.raises(HashMismatch):
        store.copy_published("staged.png", "images/1.png", sha256(b"promised"))
    with pytest.raises(FileNotFoundError):
        store.copy_published("none.png", "images/1.png", sha256(b"promised"))
    assert store.read("images/1.png") == b"good"


def test_a_published_image_on_s3_says_what_it_is(s3_prefix: str, s3_client: Any) -> None:
    _, bucket, prefix = split_uri(s3_prefix)
    store = Store(s3_prefix)
    store.write("staged", b"png")
    store.copy_published("staged", "images/1.png", sha256(b"png"))
    found = s3_client.head_object(Bucket=bucket, Key=f"{prefix}/images/1.png")
    assert found["ContentType"] == "image/png"
    assert found["Metadata"] == {HASH_METADATA: sha256(b"png")}


def test_a_hash_is_read_where_another_program_wrote_the_object(
    s3_prefix: str, s3_client: Any
) -> None:
    _, bucket, prefix = split_uri(s3_prefix)
    s3_client.put_object(Bucket=bucket, Key=f"{prefix}/1.jpg", Body=b"jpeg")
    assert Store(s3_prefix).sha256_of("1.jpg") == sha256(b"jpeg")


def test_store_time_is_comparable_with_the_age_of_objects(store: Store) -> None:
    store.write("x", b"")
    info = store.info("x")
    assert info is not None
    assert 0 <= store.store_time() - info.modified <= 5
    assert [found.key for found in store.list()] == ["x"]


def test_a_store_travels_to_another_process_and_survives_a_fork_there(store: Store) -> None:
    store.write("x", b"from the parent")
    program = (
        "import os, pickle, sys\n"
        "store = pickle.load(sys.stdin.buffer)\n"
        "store.read('x')\n"
        "pid = os.fork()\n"
        "store.write(f'{pid > 0}', store.read('x'))\n"
        "pid and sys.exit(os.waitpid(pid, 0)[1])\n"
    )
    content = pickle.dumps(store)
    assert len(content) < 500
    subprocess.run([sys.executable, "-c", program], input=content, check=True, timeout=60)
    assert store.read("True") == store.read("False") == b"from the parent"


def test_uris_and_keys_convert_both_ways(store: Store) -> None:
    for key in ("1.jpg", "a b/ü/1%20#?.jpg"):
        store.write(key, b"x")
        uri = store.uri_of(key)
        assert store.key_of(uri) == key
        assert read_uri(uri) == read_uri(uri, root=store.uri) == b"x"
    with pytest.raises(ValueError, match="another place"):
        store.key_of(store.uri + "-other/1.jpg")
    with pytest.raises(ConfigurationError, match="allow its prefix"):
        read_uri(store.uri + "-other/1.jpg", root=store.uri)


def test_a_missing_root_is_told_from_an_empty_one(store: Store, tmp_path: Path) -> None:
    missing = "s3://no-such-bucket/x" if store.uri.startswith("s3") else str(tmp_path / "none")
    assert not open_store(missing).root_exists()
    store.write("x", b"")
    assert store.root_exists()
    assert open_store(missing).info("x") is None


def test_a_missing_bucket_is_an_environment_trouble_without_waiting(s3_endpoint: str) -> None:
    store = Store("s3://no-such-bucket/x", retry_delays_s=(30,))
    for use in (lambda: store.read("x"), lambda: [*store.list()]):
        with pytest.raises(StoreUnreachable, match="bucket does not exist"):
            use()


def test_a_local_write_leaves_no_half_file_and_no_hidden_one(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_store.write("a/1", b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentTrouble, match="writing in file://") as trouble:
        local_store.write("a/1", b"new")
    assert trouble.value.cause == "disk_full"
    assert local_store.read("a/1") == b"old"
    assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["1"]


def test_a_listing_hides_what_a_killed_writer_left(local_store: Store, tmp_path: Path) -> None:
    local_store.write("images/1.png", b"x")
    (tmp_path / "store" / "images" / ".dladiff-0123.tmp").write_bytes(b"half")
    assert [info.key for info in local_store.list()] == ["images/1.png"]


def test_links_out_of_a_local_root_are_skipped_counted_and_not_read(
    local_store: Store, tmp_path: Path
) -> None:
    local_store.write("ann/1.jpg", b"in")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    root = tmp_path / "store"
    os.symlink(tmp_path / "secret" / "key", root / "ann" / "2.jpg")
    os.symlink(tmp_path / "secret", root / "bob")
    os.symlink(root / "ann" / "1.jpg", root / "ann" / "3.jpg")
    os.symlink(root, root / "ann" / "loop")
    os.symlink("nowhere", root / "ann" / "dangling")
    skipped = Skipped()
    assert [info.key for info in local_store.list("", skipped)] == ["ann/1.jpg", "ann/3.jpg"]
    assert skipped == {"link_leaves_folder": 2, "link_loop": 1, "not_a_file": 1}
    for key in ("ann/2.jpg", "bob/key", "../secret/key"):
        with pytest.raises(FileNotFoundError):
            local_store.read(key)
        assert local_store.info(key) is None


def test_a_name_that_is_no_text_is_skipped_and_counted(local_store: Store, tmp_path: Path) -> None:
    local_store.write("ann/1.jpg", b"in")
    (tmp_path / "store" / "ann" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    skipped = Skipped()
    assert [info.key for info in local_store.list("", skipped)] == ["ann/1.jpg"]
    assert skipped == {"undecodable_name": 1}


def test_deleting_the_last_file_of_a_folder_removes_the_folder(
    local_store: Store, tmp_path: Path
) -> None:
    local_store.write("data/1/a/x", b"")
    local_store.write("data/2/y", b"")
    local_store.delete(["data/1/a/x"])
    assert [path.name for path in (tmp_path / "store" / "data").iterdir()] == ["2"]


def test_a_forbidden_folder_is_denied(local_store: Store, tmp_path: Path) -> None:
    local_store.write("ann/1.jpg", b"x")
    with forbidden(tmp_path / "store" / "ann"):
        with pytest.raises(StoreDenied):
            local_store.read("ann/1.jpg")
        with pytest.raises(StoreDenied):
            [*local_store.list()]


def test_temporary_files_of_killed_writers_are_swept_and_nothing_else(local_store: Store) -> None:
    root = Path(local_store.uri.removeprefix("file://"))
    local_store.write("images/ann/1.png", b"whole")
    old, fresh = (root / f"images/ann/.dladiff-{name}.tmp" for name in ("old", "fresh"))
    for path in (old, fresh, root / "images/ann/1.png"):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(root / "images/ann/1.png", (0, 0))
    assert local_store.sweep(older_than_s=900) == 1
    assert sorted(path.name for path in root.rglob("*.*")) == [fresh.name, "1.png"]
