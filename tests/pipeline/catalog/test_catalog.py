"""The catalog: folders and catalog files; nothing is lost without being counted."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog.folder import check_paths, find_gone, read_catalog
from pipeline.catalog.names import hidden_part, is_hidden
from pipeline.catalog.photos import Catalog
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError, StoreDenied
from pipeline.reasons import PASSED_OVER
from pipeline.records import PhotoSet, SourcePhoto
from pipeline.storage.store import Store, open_store
from pipeline.worker.read_photos import read_photo_set
from tests.permissions import forbidden
from tests.sample_photos import jpeg_bytes, write_album

OPERATION = OperationSettings()


def album(folder: Path, *paths: str) -> str:
    write_album(folder, dict.fromkeys(paths, b"x"))
    return str(folder)


def photos_of(catalog: Catalog) -> dict[str, SourcePhoto]:
    return {photo.output_key: photo for photo in catalog.photos}


def test_folders_are_identities_at_any_depth(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg", "ann/2024/06/1.JPG", "bob/a.heic", "bob/a.png")
    catalog = read_catalog(root, OPERATION)
    photos = photos_of(catalog)
    assert {key: photo.identity for key, photo in photos.items()} == {
        "images/ann/1.jpg.png": "ann",
        "images/ann/2024/06/1.JPG.png": "ann",
        "images/bob/a.heic.png": "bob",
        "images/bob/a.png.png": "bob",
    }
    first = photos["images/ann/1.jpg.png"]
    assert first.uri == f"file://{root}/ann/1.jpg"
    status = (tmp_path / "in/ann/1.jpg").stat()
    assert first.size_bytes == 1
    assert str(status.st_mtime_ns) in first.version
    assert first.modified_s == pytest.approx(status.st_mtime)
    assert catalog.report.num_photos == catalog.report.num_bytes == 4
    assert catalog.report.num_identities == 2
    assert catalog.report.num_ignored == 0


def test_what_is_no_photo_is_counted_by_reason(tmp_path: Path) -> None:
    root = album(
        tmp_path / "in",
        "ann/1.jpg",
        "ann/1.mov",
        "ann/notes.TXT",
        "ann.b/README",
        "ann/.DS_Store",
        "ann/._1.jpg",
        ".hidden/1.jpg",
        ".hidden/2.jpg",
        "ann/@eaDir/1.jpg/thumb.jpg",
    )
    (tmp_path / "in/ann/nothing").touch()
    report = read_catalog(root, OPERATION).report
    assert report.num_photos == 1
    assert report.ignored == {"hidden": 4, "other_type": 3, "empty": 1}
    assert set(report.ignored) <= set(PASSED_OVER)
    assert report.ignored_extensions == {"mov": 1, "txt": 1, "": 1}
    assert report.types_without_names() == {"mov": 1, "txt": 1, "": 1}
    assert report.num_looked_at == 3


ODD_NAMES = (
    "1.jfif", "2.jpe", "3.MPO", "4.JPG_large", "5.jpg.bak", "6.txt", "c0ffee", "a b/ü",
)  # fmt: skip
"""Names of photos as browsers, phones and content-addressed buckets give them."""


def test_photos_are_recognised_by_their_content_whatever_their_name(store: Store) -> None:
    for name in ODD_NAMES:
        store.write(f"ann/{name}", jpeg_bytes())
    store.write("ann/raw.xyz", b"II*\0" + bytes(50))
    store.write("ann/film", b"\0\0\0\x18ftypisom" + bytes(50))
    catalog = read_catalog(store.uri, OPERATION)
    keys = {store.key_of(photo.uri) for photo in catalog.photos}
    assert keys == {f"ann/{name}" for name in ODD_NAMES} | {"ann/raw.xyz"}
    assert catalog.report.ignored == {"other_type": 1}
    assert catalog.report.num_looked_at == len(ODD_NAMES) + 2


def test_what_output_has_decided_on_is_not_looked_at_again(tmp_path: Path) -> None:
    write_album(tmp_path / "in", {"ann/1": jpeg_bytes(), "ann/2": jpeg_bytes(), "ann/3": b"x"})
    known = [photo.uri for photo in read_catalog(str(tmp_path / "in"), OPERATION).photos]
    again = read_catalog(str(tmp_path / "in"), OPERATION, known=lambda: known)
    assert [photo.uri for photo in again.photos] == known
    assert again.report.num_looked_at == 1


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {"ann/1.JPG", "ann/2", "bob/a/3.png", "bob/a/4.jpg"}),
        ({"include": ["*.jpg"]}, {"ann/1.JPG", "bob/a/4.jpg"}),
        ({"include": ["ann", "*.png"]}, {"ann/1.JPG", "ann/2", "bob/a/3.png"}),
        ({"exclude": ["bob"]}, {"ann/1.JPG", "ann/2"}),
        ({"exclude": ["bob/*.jpg", "2"]}, {"ann/1.JPG", "bob/a/3.png"}),
        ({"include": ["bob/*"], "exclude": ["*.PNG"]}, {"bob/a/4.jpg"}),
    ],
)
def test_patterns_choose_what_is_looked_at(
    settings: dict[str, Any], found: set[str], tmp_path: Path
) -> None:
    names = ("ann/1.JPG", "ann/2", "bob/a/3.png", "bob/a/4.jpg")
    write_album(tmp_path / "in", dict.fromkeys(names, jpeg_bytes()))
    catalog = read_catalog(str(tmp_path / "in"), OperationSettings(**settings))
    root = f"file://{tmp_path}/in/"
    assert {photo.uri.removeprefix(root) for photo in catalog.photos} == found
    assert catalog.report.ignored.get("left_out", 0) == 4 - len(found)
    assert catalog.report.num_looked_at == ("ann/2" in found)
    # What is left out is not gone.
    assert find_gone(catalog, [root + name for name in (*names, "ann/9.jpg")]) == (
        [f"{root}ann/9.jpg"] if settings.get("include", ["*.jpg"]) != ["bob/*"] else []
    )


def test_patterns_beside_a_catalog_file_are_refused(tmp_path: Path) -> None:
    uri = csv_file(tmp_path, "identity,uri\nann,ann/1.jpg\n")
    with pytest.raises(ConfigurationError, match="a catalog file names its photos itself"):
        read_catalog(uri, OperationSettings(exclude=("*.txt",)))


def test_a_folder_that_may_not_be_read_is_named_and_nothing_in_it_is_gone(tmp_path: Path) -> None:
    root = album(
        tmp_path / "in", "ann/1.jpg", "bob/2024/2.jpg", "cat/3.jpg", "dan/4", "lost+found/5"
    )
    known = [photo.uri for photo in read_catalog(root, OPERATION).photos]
    (tmp_path / "in/ann/1.jpg").unlink()
    folders = [tmp_path / "in" / name for name in ("bob/2024", "lost+found")]
    with forbidden(*folders, tmp_path / "in/dan/4"), forbidden(tmp_path / "in/cat", mode=0o444):
        catalog = read_catalog(root, OPERATION)
    assert catalog.report.denied == [f"file://{root}/bob/2024", f"file://{root}/cat/3.jpg"]
    assert catalog.report.ignored == {"denied": 2, "hidden": 1}
    assert [photo.uri for photo in catalog.photos] == [f"file://{root}/dan/4"]
    assert find_gone(catalog, known) == [f"file://{root}/ann/1.jpg"]


def test_a_forbidden_folder_that_is_left_out_is_no_trouble(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg", "bob/2.jpg")
    with forbidden(tmp_path / "in/bob"):
        report = read_catalog(root, OperationSettings(exclude=("bob",))).report
    assert (report.denied, report.num_photos) == ([], 1)


def test_an_input_that_may_not_be_read_itself_is_an_error(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg")
    with forbidden(tmp_path / "in"), pytest.raises(StoreDenied):
        read_catalog(root, OPERATION)


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "Thumbs.db", "thumbs.DB", "._1.jpg", "lost+found", ".Trash-1000", "~snapshot",
     ".snapshot", "#snapshot", "@eaDir", "$RECYCLE.BIN", "#recycle", "System Volume Information"],
)  # fmt: skip
def test_names_of_systems_are_nobodys_content(name: str) -> None:
    assert is_hidden(name)
    assert hidden_part(f"ann/{name}/x/1.jpg") == f"ann/{name}"
    assert hidden_part("ann/snapshot/lost.jpg") is None


def test_photos_without_a_folder_belong_to_input_itself(tmp_path: Path) -> None:
    catalog = read_catalog(album(tmp_path / "My Album", "1.jpg", "ann/2.jpg"), OPERATION)
    assert {photo.output_key: photo.identity for photo in catalog.photos} == {
        "images/My%20Album/1.jpg.png": "My Album",
        "images/ann/2.jpg.png": "ann",
    }


def test_identities_without_photos_are_reported(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg", "bob/notes.txt", ".trash/1.jpg")
    (tmp_path / "in/eve/2024").mkdir(parents=True)
    report = read_catalog(root, OPERATION).report
    assert report.identities_without_photos == ["bob", "eve"]


def test_links_that_leave_input_are_skipped(tmp_path: Path) -> None:
    root = Path(album(tmp_path / "in", "ann/1.jpg"))
    album(tmp_path / "elsewhere", "secret.jpg", "more/2.jpg")
    (root / "ann/link.jpg").symlink_to(tmp_path / "elsewhere/secret.jpg")
    (root / "mallory").symlink_to(tmp_path / "elsewhere/more")
    (root / "ann/dangling.jpg").symlink_to(root / "ann/nowhere.jpg")
    (root / "ann/loop").symlink_to(root / "ann")
    (root / "ann/inside.jpg").symlink_to(root / "ann/1.jpg")
    (root / "ann/folder.jpg").mkdir()
    os.mkfifo(root / "ann/pipe.jpg")
    catalog = read_catalog(str(root), OPERATION)
    assert sorted(photos_of(catalog)) == ["images/ann/1.jpg.png", "images/ann/inside.jpg.png"]
    assert catalog.report.ignored["link_leaves_folder"] == 2
    assert catalog.report.ignored["link_loop"] == 1
    assert catalog.report.ignored["not_a_file"] == 2


def test_names_that_are_no_text_are_counted(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg")
    Path(os.fsdecode(os.fsencode(root) + b"/ann/\xff.jpg")).write_bytes(b"x")
    report = read_catalog(root, OPERATION).report
    assert (report.num_photos, report.ignored["undecodable_name"]) == (1, 1)


def test_an_empty_folder_has_no_photos(tmp_path: Path) -> None:
    assert not len(read_catalog(str(tmp_path), OPERATION).photos)


def test_missing_input_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist: check its spelling"):
        read_catalog(str(tmp_path / "nowhere"), OPERATION)
    with pytest.raises(ConfigurationError, match=r"does not exist"):
        read_catalog(str(tmp_path / "nowhere.csv"), OPERATION)
    with pytest.raises(ConfigurationError, match=r"file:///no-such-folder does not exist"):
        read_catalog("/no-such-folder", OPERATION)
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigurationError, match=r"\(did you mean photos\?\); .* holds photos"):
        read_catalog(str(tmp_path / "fotos"), OPERATION)


def test_a_single_photo_as_input_is_refused_with_a_remedy(tmp_path: Path) -> None:
    album(tmp_path, "1.jpg")
    with pytest.raises(ConfigurationError, match=r"is a file: give the folder"):
        read_catalog(str(tmp_path / "1.jpg"), OPERATION)


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("in", "in", "lies in OUTPUT"),
        ("in", "in/out", "OUTPUT .* lies in INPUT"),
        ("out/in", "out", "INPUT .* lies in OUTPUT"),
        ("link", "in/out", "lies in INPUT"),
        ("s3://b/photos", "s3://b/photos/out", "lies in INPUT"),
        ("s3://b/photos", "s3://b", "lies in OUTPUT"),
    ],
)
def test_nested_paths_are_refused(
    source: str, output: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("link").symlink_to("in")
    with pytest.raises(ConfigurationError, match=message):
        check_paths(source, output)


def test_neighbours_are_accepted_and_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_paths("in/", "in-protected") == (
        f"file://{tmp_path}/in",
        f"file://{tmp_path}/in-protected",
    )
    assert check_paths("s3://b/in", "s3://b/in2") == ("s3://b/in", "s3://b/in2")


def test_only_photos_that_really_left_are_gone(tmp_path: Path) -> None:
    root = album(tmp_path / "in", "ann/1.jpg", "ann/2.jpg")
    album(tmp_path / "other", "bob/1.jpg")
    known = [photo.uri for photo in read_catalog(root, OPERATION).photos]
    (tmp_path / "in/ann/2.jpg").unlink()
    elsewhere = f"file://{tmp_path}/other/bob/gone.jpg"
    catalog = read_catalog(root, OPERATION)
    assert find_gone(catalog, [*known, elsewhere]) == [f"file://{root}/ann/2.jpg"]


def csv_file(folder: Path, text: str, encoding: str = "utf-8") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalog.csv").write_text(text, encoding=encoding)
    return str(folder / "catalog.csv")


def test_a_csv_catalog_names_photos_and_keys(tmp_path: Path) -> None:
    album(tmp_path, "in/ann/1.jpg", "in/raw/2")
    uri = csv_file(
        tmp_path / "in",
        "identity,uri,output_key,remark\n"
        f"ann,ann/1.jpg,,hello\nBob B.,{tmp_path}/in/raw/2,images/b/2.png,\n",
    )
    catalog = read_catalog(uri, OPERATION)
    photos = photos_of(catalog)
    assert {key: photo.identity for key, photo in photos.items()} == {
        "images/ann/1.jpg.png": "ann",
        "images/b/2.png": "Bob B.",
    }
    assert catalog.from_file
    assert catalog.given_keys == {f"file://{tmp_path}/in/raw/2"}
    folder = {photo.uri: photo for photo in read_catalog(str(tmp_path / "in"), OPERATION).photos}
    assert folder[photos["images/ann/1.jpg.png"].uri] == photos["images/ann/1.jpg.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_catalogs_saved_by_spreadsheets_are_read(tmp_path: Path, encoding: str) -> None:
    album(tmp_path, "jörg/1.jpg")
    uri = csv_file(tmp_path, 'identity;uri\r\n"Jörg";jörg/1.jpg\r\n', encoding)
    (photo,) = read_catalog(uri, OPERATION).photos
    assert photo.identity == "Jörg"


def test_a_parquet_catalog_is_read(tmp_path: Path) -> None:
    album(tmp_path, "in/a.jpg", "in/b.jpg")
    rows = [{"identity": "ann", "uri": "a.jpg", "age": 3}, {"identity": "ann", "uri": "b.jpg"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in/photos.parquet")
    catalog = read_catalog(str(tmp_path / "in/photos.parquet"), OPERATION)
    assert sorted(photos_of(catalog)) == ["images/ann/a.jpg.png", "images/ann/b.jpg.png"]


def test_an_inventory_is_believed_without_a_look(tmp_path: Path) -> None:
    when = datetime(2026, 3, 1, 12, tzinfo=UTC)
    described = {"identity": "ann", "e_tag": "x1", "last_modified_date": when}
    rows = [described | {"uri": "a.jpg", "size": 7}, described | {"uri": "b.jpg", "size": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "photos.parquet")
    catalog = read_catalog(str(tmp_path / "photos.parquet"), OPERATION)
    first, other = sorted(catalog.photos, key=lambda photo: photo.uri)
    assert (first.size_bytes, first.version) == (7, "x1")
    assert first.modified_s == when.timestamp()
    assert other.version == ""  # not wholly described: looked for, and not there
    assert catalog.report.num_missing == 1
    header = "identity,uri,size,e_tag,last_modified_date\n"
    uri = csv_file(tmp_path, f'{header}ann,a.jpg,7,"""x1""",2026-03-01T12:00:00Z\n')
    assert [*read_catalog(uri, OPERATION).photos] == [first]


def test_an_inventory_says_what_a_listing_says(s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    store.write("ann/1.jpg", b"12345")
    info = store.info("ann/1.jpg")
    assert info is not None
    header = "identity,uri,size,e_tag,last_modified_date\n"
    row = f"ann,ann/1.jpg,{info.size},{info.version},{info.modified}\n"
    store.write("photos.csv", (header + row).encode())
    (listed,) = read_catalog(s3_prefix, OPERATION).photos
    assert [*read_catalog(f"{s3_prefix}/photos.csv", OPERATION).photos] == [listed]


def test_photos_that_are_not_there_are_kept_and_counted(tmp_path: Path) -> None:
    catalog = read_catalog(csv_file(tmp_path, "identity,uri\nann,ann/1.jpg\n"), OPERATION)
    assert [photo.version for photo in catalog.photos] == [""]
    assert catalog.report.num_missing == 1


def test_a_photo_that_a_catalog_no_longer_names_is_not_gone(tmp_path: Path) -> None:
    album(tmp_path, "ann/1.jpg", "ann/2.jpg")
    known = [f"file://{tmp_path}/ann/{name}.jpg" for name in (1, 2, 3)]
    catalog = read_catalog(csv_file(tmp_path, "identity,uri\nann,ann/1.jpg\n"), OPERATION)
    assert find_gone(catalog, known) == [f"file://{tmp_path}/ann/3.jpg"]


def test_allowed_prefixes_extend_where_photos_may_lie(tmp_path: Path) -> None:
    album(tmp_path, "more/ann/1.jpg")
    uri = csv_file(tmp_path / "in", f"identity,uri\nann,{tmp_path}/more/ann/1.jpg\n")
    with pytest.raises(ConfigurationError, match=r"row 1: .* add --allow-prefix"):
        read_catalog(uri, OPERATION)
    allowed = OperationSettings(allow_prefixes=(str(tmp_path / "more"),))
    catalog = read_catalog(uri, allowed)
    assert sorted(photos_of(catalog)) == ["images/ann/1.jpg.png"]
    assert catalog.roots == (f"file://{tmp_path}/in", f"file://{tmp_path}/more")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("identity,path\nann,1.jpg\n", "lacks the column 'uri'"),
        ("identity,uri,output-key\nann,1.jpg,x\n", "did you mean 'output_key'"),
        ("identity,uri\nann,../secret.jpg\n", "row 1: .* neither below"),
        ("identity,uri\nann,/etc/passwd\n", "row 1: .* neither below"),
        ("identity,uri\nann,http://evil.example/1.jpg\n", "scheme 'http' is not supported"),
        ("identity,uri\nann,simplecache::s3://b/1.jpg\n", "chains file systems"),
        ("identity,uri\nann,s3://bucket/1.jpg\n", "neither below"),
        ("identity,uri\n,1.jpg\n", "row 1: identity and uri must not be empty"),
        (
            "identity,uri,size,e_tag,last_modified_date\nann,1.jpg,big,x,2026-01-01\n",
            "row 1: expected size in bytes",
        ),
        (
            "identity,uri,size,e_tag,last_modified_date\nann,1.jpg,5,x,yesterday\n",
            "row 1: expected size in bytes",
        ),
        ("identity,uri\nann,1.jpg\nbob,./1.jpg\n", "row 2: this uri stands in an earlier row"),
        ("identity,uri,output_key\nann,1.jpg,manifest/x.png\n", "below images/"),
        ("identity,uri,output_key\nann,1.jpg,images/../x.png\n", "below images/"),
        (
            "identity,uri,output_key\nann,1.jpg,images/x.png\nann,2.jpg,images/X.png\n",
            "row 2: this output_key stands in an earlier row",
        ),
    ],
)
def test_wrong_catalogs_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    uri = csv_file(tmp_path / "in", rows)
    with pytest.raises(ConfigurationError, match=message):
        read_catalog(uri, OPERATION)


def test_links_out_of_the_catalogs_folder_are_refused(tmp_path: Path) -> None:
    album(tmp_path, "secret.jpg")
    uri = csv_file(tmp_path / "in", "identity,uri\nann,link.jpg\n")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ConfigurationError, match="neither below"):
        read_catalog(uri, OPERATION)


def test_photos_of_output_are_refused(tmp_path: Path) -> None:
    album(tmp_path, "out/images/ann/1.jpg")
    uri = csv_file(tmp_path, "identity,uri\nann,out/images/ann/1.jpg\n")
    with pytest.raises(ConfigurationError, match=r"row 1: .* lies in OUTPUT"):
        read_catalog(uri, OPERATION, output_uri=f"file://{tmp_path}/out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"identity,uri\n\xff\xfe,1.jpg\n", "not UTF-8"),
        ("c.csv", b"", "lacks the column"),
        ("c.parquet", b"PAR1 not really", "no readable Parquet"),
    ],
)
def test_unreadable_catalogs_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_catalog(str(tmp_path / name), OPERATION)


def test_buckets_are_listed_and_read_like_folders(s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    for key in ("ann/1 ä.jpg", "ann/2024/2.JPG", "bob/notes.txt", ".hidden/3.jpg", "4.jpg"):
        store.write(key, b"content of " + key.encode())
    catalog = read_catalog(s3_prefix, OPERATION)
    name = s3_prefix.rpartition("/")[2]
    assert {photo.output_key: photo.identity for photo in catalog.photos} == {
        "images/ann/1%20%C3%A4.jpg.png": "ann",
        "images/ann/2024/2.JPG.png": "ann",
        f"images/{name}/4.jpg.png": name,
    }
    assert catalog.report.ignored == {"hidden": 1, "other_type": 1}
    assert catalog.report.num_looked_at == 1
    assert catalog.report.identities_without_photos == ["bob"]
    photo_set = PhotoSet("key", "ann", tuple(catalog.photos))
    reads = read_photo_set(photo_set, 1000, catalog.roots)
    assert [read.content for read in reads] == [
        b"content of " + store.key_of(photo.uri).encode() for photo in catalog.photos
    ]
    store.write("c/catalog.csv", b"identity,uri\nann,../ann/1.jpg\n")
    with pytest.raises(ConfigurationError, match="have no meaning in a bucket"):
        read_catalog(f"{s3_prefix}/c/catalog.csv", OPERATION)
    with pytest.raises(ConfigurationError, match=r"no objects: check .* mean bob\?\).* ann, bob"):
        read_catalog(f"{s3_prefix}/bobb", OPERATION)
