"""Parts of INPUT: shards of the people, and increments that name what is new."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.catalog.folder import read_catalog
from pipeline.catalog.people import shard_takes
from pipeline.config import OperationSettings, RunConfig
from pipeline.errors import ConfigurationError
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOutcome
from pipeline.output.manifest import decided_sources, newest_state
from pipeline.output.service_level import read_service_level
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, photo_image, write_album

PEOPLE = ["ann", "Ann", "bob", "cat", "dan", "eve", "fay", "gus"]


def write_photos(folder: Path, names: Iterable[str]) -> None:
    write_album(
        folder,
        {name: encode(photo_image(32, 32, seed), "PNG") for seed, name in enumerate(names)},
    )


@pytest.fixture
def album(tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", [f"{name}/{number}.png" for name in PEOPLE for number in (1, 2)])
    return tmp_path / "in"


def of(**operation: object) -> RunConfig:
    values = CONFIG.operation.model_dump() | operation
    return CONFIG.model_copy(update={"operation": OperationSettings.model_validate(values)})


def protect(source: Path | str, store: Store, **operation: object) -> RunOutcome:
    return run_protection(str(source), store, of(**operation), pool=OwnProcess(store))


def test_each_person_belongs_to_one_shard_and_names_of_other_case_go_together() -> None:
    shards = [shard_takes(f"{number}/5") for number in range(1, 6)]
    for name in (f"person-{number}" for number in range(200)):
        taken = [takes is not None and takes(name) for takes in shards]
        assert sum(taken) == 1
        assert taken == [takes is not None and takes(name.upper()) for takes in shards]
    sizes = [sum(t(f"person-{n}") for n in range(10_000)) for t in shards if t is not None]
    assert min(sizes) > 1800
    assert shard_takes(None) is None


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "-1/4", "1/4 ", "a/b"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="NUMBER/COUNT"):
        OperationSettings(shard=text)


def test_all_shards_together_do_what_one_run_does(album: Path, tmp_path: Path) -> None:
    parts, whole = Store(str(tmp_path / "parts")), Store(str(tmp_path / "whole"))
    counts = [
        protect(album, parts, shard=f"{number}/3").counts.get("protected", 0)
        for number in (1, 2, 3)
    ]
    protect(album, whole)
    assert sum(counts) == 2 * len(PEOPLE)
    assert max(counts) < 2 * len(PEOPLE)
    images = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("images/**/*.*")}
        for out in (tmp_path / "parts", tmp_path / "whole")
    ]
    assert len(images[0]) == 2 * len(PEOPLE)
    assert images[0] == images[1]
    # The stand-in of these tests makes a negative, which no budget allows: that alone is found.
    details = [one.detail for one in verify_output(parts.uri, str(album)).findings]
    assert all("levels outside faces" in detail for detail in details), details
    assert protect(album, parts).num_sets == 0  # a run of all finds nothing left


def test_a_shard_leaves_the_others_alone_also_where_photos_are_gone(
    album: Path, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "out"))
    protect(album, store)
    takes = shard_takes("1/2")
    assert takes is not None
    mine, other = ([n for n in PEOPLE if takes(n) is side] for side in (True, False))
    for name in (mine[0], other[0]):
        (album / name / "1.png").unlink()
    protect(album, store, shard="1/2")
    gone = {uri for uri, one in newest_state(store).items() if one.status == "source_gone"}
    assert [uri.split("/")[-2] for uri in gone] == [mine[0]]


def test_a_shard_without_people_and_a_listing_of_others_are_no_errors(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", ["ann/1.png"])
    store = Store(str(tmp_path / "out"))
    done = [protect(tmp_path / "in", store, shard=f"{n}/2").counts for n in (1, 2)]
    assert sorted(map(dict, done), key=len) == [{}, {"protected": 1}]


def test_only_what_is_wanted_is_read_of_the_manifest(album: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    protect(album, store)
    every = newest_state(store)
    some = newest_state(store, lambda identity: identity == "bob")
    assert some == {uri: one for uri, one in every.items() if one.identity == "bob"}
    assert len(some) == 2
    assert decided_sources(store) == every.keys()
    assert decided_sources(store, lambda identity: identity == "bob") == some.keys()
    assert newest_state(store, lambda _: False) == {}


def test_a_shard_of_a_catalog_file_looks_its_own_photos_up_alone(
    album: Path, tmp_path: Path
) -> None:
    rows = "".join(f"{name},{name}/{number}.png\n" for name in PEOPLE for number in (1, 2))
    (album / "photos.csv").write_text("identity,uri\n" + rows)
    found = [
        read_catalog(str(album / "photos.csv"), of(shard=f"{number}/3").operation).photos
        for number in (1, 2, 3)
    ]
    names = [photo.uri for photos in found for photo in photos]
    assert len(names) == len(set(names)) == 2 * len(PEOPLE)
    assert all(photos for photos in found)


# --- increments ---


def news(album: Path, *names: str) -> str:
    path = album / "news.csv"
    rows = "".join(f"{name.partition('/')[0]},{name}\n" for name in names)
    path.write_text("identity,uri\n" + rows)
    return str(path)


def test_an_increment_protects_what_it_names_and_leaves_the_rest(
    album: Path, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "out"))
    protect(album, store)
    before = newest_state(store)
    write_photos(album, ["bob/new.png", "zoe/1.png"])
    (album / "cat/1.png").unlink()
    (album / "bob/1.png").unlink()  # of a person whom it names: not looked for either
    source = news(album, "bob/new.png", "bob/2.png", "zoe/1.png")
    outcome = protect(source, store, increment=True)
    assert outcome.counts == {"protected": 2}
    after = newest_state(store)
    assert {uri: after[uri] for uri in before} == before
    assert {uri.split("/in/")[1] for uri in after.keys() - before.keys()} == {
        "bob/new.png",
        "zoe/1.png",
    }
    (album / "news.csv").unlink()
    protect(album, store)
    gone = [uri for uri, one in newest_state(store).items() if one.status == "source_gone"]
    assert len(gone) == 2  # the next run of all finds what was deleted


def test_an_increment_is_a_catalog_file(album: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="INPUT has to be a catalog file"):
        protect(album, Store(str(tmp_path / "out")), increment=True)


@pytest.mark.parametrize("operation", [{"increment": True}, {"shard": "1/1"}])
def test_given_keys_need_all_people(
    album: Path, tmp_path: Path, operation: dict[str, object]
) -> None:
    path = album / "keys.csv"
    path.write_text("identity,uri,output_key\nbob,bob/1.png,images/x.png\n")
    with pytest.raises(ConfigurationError, match="another person's"):
        protect(path, Store(str(tmp_path / "out")), **operation)


# --- how OUTPUT stands ---


def test_uploads_are_decided_up_to_a_time_once_all_shards_have_been_listed(
    album: Path, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "out"))

    def since() -> float:
        level = read_service_level(store)
        assert level is not None
        return level.unprotected_since

    protect(album, store, shard="1/2")
    assert since() == 0  # of the other shard nothing is known
    protect(album, store, shard="2/2")
    first = since()
    assert first > 0
    protect(album, store, shard="2/2")
    assert since() == first  # the older of the two
    protect(album, store, shard="1/3")
    assert since() == first  # shards of another count begin anew
    protect(album, store)
    whole = since()
    assert whole > first
    protect(news(album, "bob/1.png"), store, increment=True)
    assert since() == whole
    level = read_service_level(store)
    assert level is not None
    assert level.last_run_at > level.unprotected_since
