"""Photos that are protected again for what the manifest measured of them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings, load_config
from pipeline.errors import ConfigurationError
from pipeline.inspection.preview import preview_run
from pipeline.options import RunOptions
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.selection import Condition, select_sources
from tests.pipeline.protected_album import ProtectedAlbum


@pytest.mark.parametrize(
    ("text", "found", "holds"),
    [
        ("psnr_db<30", 29.9, True),
        ("psnr_db < 30", 30.0, False),
        ("psnr_db<=30", 30.0, True),
        ("psnr_db<30", None, False),
        ("psnr_db=null", None, True),
        ("psnr_db!=null", 30.0, True),
        ("num_faces>=2", 2, True),
        ("target_met=false", False, True),
        ("target_met=false", None, False),
        ("target_met!=true", False, True),
        ("status=layer2_only", "layer2_only", True),
        ("reason!=no_face", "too_small: 3 px", True),
    ],
)
def test_a_condition_compares_what_was_measured(text: str, found: Any, holds: bool) -> None:
    assert Condition.parse(text).holds(found) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("psnr_db", "expected a condition such as psnr_db<30"),
        ("psnr<30", "did you mean psnr_db?"),
        ("faces=1", "no column 'faces' to compare"),
        ("psnr_db<high", "expected a number or null"),
        ("target_met=no", "expected true, false or null"),
        ("target_met<true", "only = and != make sense here"),
    ],
)
def test_a_wrong_condition_is_refused_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Condition.parse(text)
    assert message in str(caught.value)


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    """A second run left ben's photos, and no others, short of the target."""
    album = ProtectedAlbum(tmp_path)
    album.begin("run-2", album.sets[1:])
    album.commit("run-2", album.sets[1], target_met=False, psnr_db=29.0)
    album.run("run-2", [])
    return album


def test_the_newest_row_decides_and_all_conditions_must_hold(album: ProtectedAlbum) -> None:
    def chosen(*texts: str) -> set[str]:
        uris = select_sources(album.store, [Condition.parse(text) for text in texts])
        return {uri.removeprefix(f"file://{album.input}/") for uri in uris}

    assert chosen("target_met=false") == {"ben/1.jpg", "ben/2.jpg"}
    assert chosen("target_met=true") == {"ann/1.jpg", "ann/2.jpg"}
    assert chosen("target_met=false", "psnr_db>30") == set()
    assert chosen() == set()


def test_chosen_photos_are_planned_again_also_where_another_method_is_kept(
    album: ProtectedAlbum,
) -> None:
    catalog = read_catalog(str(album.input), OperationSettings())
    rules = DecisionRules("e" * 64, on_method_change="keep")
    worst = ["target_met=false"]
    plan = plan_against_output(
        catalog, album.store, load_config("zero-shot"), rules, reprotect=worst
    )
    assert [each.identity for each in plan.photo_sets] == ["ben"]
    assert (plan.counts.retry, plan.counts.unchanged) == (2, 2)


def test_a_preview_counts_them(album: ProtectedAlbum) -> None:
    options = RunOptions(on_method_change="keep", reprotect=("psnr_db<30",))
    config = load_config("zero-shot")
    preview = preview_run(str(album.input), str(album.output), config, options)
    assert preview.photos == {"found": 4, "retry": 2, "unchanged": 2}
