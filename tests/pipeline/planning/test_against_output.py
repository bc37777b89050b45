"""A run and a look at what it would do plan alike, against what OUTPUT holds."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings, load_config
from pipeline.errors import ConfigurationError
from pipeline.output.runs import start_run
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.plan import Plan
from pipeline.storage.store import Store
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import jpeg_bytes, write_album

SAME_METHOD = DecisionRules("d" * 64)


def planned(album: ProtectedAlbum, rules: DecisionRules, run_id: str | None = None) -> Plan:
    catalog = read_catalog(str(album.input), OperationSettings())
    return plan_against_output(catalog, album.store, load_config("zero-shot"), rules, run_id)


def test_what_output_holds_is_not_planned_and_a_new_photo_is(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    assert planned(album, SAME_METHOD).photo_sets == []
    write_album(album.input, {"ann/new.jpg": jpeg_bytes(seed=5)})
    (photo_set,) = planned(album, SAME_METHOD).photo_sets
    assert [photo.output_key for photo in photo_set.photos] == ["images/ann/new.jpg.png"]


def test_an_output_that_does_not_exist_yet_holds_nothing(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    album.store = Store(str(tmp_path / "nowhere"))
    assert planned(album, SAME_METHOD).counts.new == 4
    assert not (tmp_path / "nowhere").exists()


def test_a_run_id_used_again_opens_the_next_generation(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    rules = dataclasses.replace(SAME_METHOD, method_digest="e" * 64, on_method_change="reprotect")
    first = planned(album, rules).photo_sets[0]
    album.begin("again", [first])
    album.commit("again", first)
    assert [each.generation for each in planned(album, rules, "again").photo_sets] == [1, 0]
    assert [each.generation for each in planned(album, rules, "fresh").photo_sets] == [0, 0]


def test_a_refusal_shows_the_settings_of_the_earlier_run(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    before = load_config("zero-shot", overrides=["loop.num_steps=7"])
    start_run(album.store, "run-2", {"config": before.model_dump(mode="json")})
    album.run("run-2", album.sets)
    with pytest.raises(ConfigurationError, match=r"run-2.*\n.*loop\.num_steps: 7 -> "):
        planned(album, DecisionRules("e" * 64))
