"""Which photos are attacked, and which stand for the person."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.evaluation.people import CLEAN, PROTECTED, find_people
from pipeline.records import SourcePhoto
from tests.evaluation_scenes import few_images
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import jpeg_bytes, write_album


def album(folder: Path, names: list[str]) -> Path:
    photos = {name: jpeg_bytes(seed=number) for number, name in enumerate(names)}
    return write_album(folder, photos)


def names(photos: object) -> list[str]:
    return [Path(photo.uri).name for photo in photos]  # type: ignore[attr-defined]


def test_the_first_four_by_name_are_attacked_and_the_others_are_the_reference(
    tmp_path: Path,
) -> None:
    clean = album(tmp_path / "clean", [f"ann/{n:02d}.jpg" for n in range(12)])
    protected = album(tmp_path / "protected", [f"ann/{n:02d}.jpg" for n in range(12)])
    (ann,) = find_people(str(clean), {PROTECTED: str(protected)}, few_images())
    assert names(ann.conditions[CLEAN]) == ["00.jpg", "01.jpg", "02.jpg", "03.jpg"]
    assert names(ann.reference) == [f"{n:02d}.jpg" for n in range(4, 12)]
    assert not ann.own_reference
    assert all(str(protected) in photo.uri for photo in ann.conditions[PROTECTED])


@pytest.mark.parametrize("ending", ["jpg", "png", "jpg.png", "webp"])
def test_a_protected_photo_is_found_under_any_photo_extension(tmp_path: Path, ending: str) -> None:
    clean = album(tmp_path / "clean", ["ann/1.jpg"])
    protected = album(tmp_path / "protected", [f"ann/1.{ending}"])
    (ann,) = find_people(str(clean), {PROTECTED: str(protected)}, few_images())
    assert names(ann.conditions[PROTECTED]) == [f"1.{ending}"]


def test_a_person_of_few_photos_is_compared_with_the_originals_of_the_attacked_ones(
    tmp_path: Path,
) -> None:
    clean = album(tmp_path / "clean", [f"ann/{n}.jpg" for n in range(4)])
    protected = album(tmp_path / "protected", [f"ann/{n}.jpg" for n in range(4)])
    (ann,) = find_people(str(clean), {PROTECTED: str(protected)}, few_images())
    assert ann.own_reference
    assert ann.reference == ann.conditions[CLEAN]


def test_every_condition_has_the_same_photos_those_that_all_trees_hold(tmp_path: Path) -> None:
    clean = album(tmp_path / "clean", [f"ann/{n}.jpg" for n in range(5)] + ["ben/0.jpg"])
    one = album(tmp_path / "one", ["ann/1.jpg", "ann/2.jpg", "ann/4.jpg", "ben/0.jpg"])
    two = album(tmp_path / "two", ["ann/0.jpg", "ann/2.jpg", "ann/4.jpg"])
    people = find_people(str(clean), {PROTECTED: str(one), "other": str(two)}, few_images())
    assert [person.identity for person in people] == ["ann"]
    assert names(people[0].conditions[CLEAN]) == ["2.jpg", "4.jpg"]
    assert names(people[0].conditions["other"]) == ["2.jpg", "4.jpg"]


def test_a_runs_output_is_read_through_its_manifest(tmp_path: Path) -> None:
    run = ProtectedAlbum(tmp_path)
    people = find_people(str(run.input), {PROTECTED: str(run.output)}, few_images())
    assert [person.identity for person in people] == ["ann", "ben"]
    assert names(people[0].conditions[PROTECTED]) == ["1.jpg.png", "2.jpg.png"]


def test_a_runs_output_is_still_understood_when_the_originals_have_moved(tmp_path: Path) -> None:
    run = ProtectedAlbum(tmp_path)
    moved = run.input.rename(tmp_path / "moved")
    people = find_people(str(moved), {PROTECTED: str(run.output)}, few_images())
    assert [len(person.conditions[PROTECTED]) for person in people] == [2, 2]


class AlbumUnderOwnNames(ProtectedAlbum):
    """As written in the photos' own format: ``ann/1.jpg`` is ``images/ann/1.jpg``."""

    def source(self, path: Path) -> SourcePhoto:
        photo = super().source(path)
        return replace(photo, output_key=photo.output_key.removesuffix(".png"))


def test_photos_under_their_own_names_are_found_where_the_originals_have_moved(
    tmp_path: Path,
) -> None:
    run = AlbumUnderOwnNames(tmp_path)
    moved = run.input.rename(tmp_path / "moved")
    people = find_people(str(moved), {PROTECTED: str(run.output)}, few_images())
    assert names(people[0].conditions[PROTECTED]) == ["1.jpg", "2.jpg"]


def test_nobody_in_both_trees_is_refused_with_both_named(tmp_path: Path) -> None:
    clean = album(tmp_path / "clean", ["ann/1.jpg"])
    protected = album(tmp_path / "protected", ["ben/1.jpg"])
    with pytest.raises(ConfigurationError, match="nobody to attack"):
        find_people(str(clean), {PROTECTED: str(protected)}, few_images())


def test_a_missing_tree_is_refused(tmp_path: Path) -> None:
    clean = album(tmp_path / "clean", ["ann/1.jpg"])
    with pytest.raises(ConfigurationError, match="no folder of protected photos"):
        find_people(str(clean), {PROTECTED: str(tmp_path / "nowhere")}, few_images())
