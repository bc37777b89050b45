"""``check`` answers every question, also after a bad answer, each with its remedy."""

from pathlib import Path

import pytest

from pipeline.config import RunConfig, load_config
from pipeline.inspection.check import Check, check_all, check_lines
from pipeline.output.lock import OutputLock
from pipeline.storage.store import Store
from tests.permissions import forbidden
from tests.pipeline.protected_album import ProtectedAlbum


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    return ProtectedAlbum(tmp_path)


def zero_shot() -> RunConfig:
    return load_config("zero-shot")


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_all_is_well_where_a_run_has_worked(album: ProtectedAlbum) -> None:
    checks = check_all(zero_shot, str(album.input), str(album.output))
    assert [check for check in checks if not check.ok] == []
    assert by_name(checks)["INPUT"].detail.startswith("4 photos of 2 identities")
    assert "OUTPUT store" in by_name(checks)
    assert check_lines(checks)[0].startswith("ok    packages")


def test_probes_leave_nothing_behind(album: ProtectedAlbum) -> None:
    before = sorted(album.output.rglob("*"))
    check_all(zero_shot, None, str(album.output))
    assert [path for path in sorted(album.output.rglob("*")) if path not in before] in (
        [],
        [album.output / "locks"],
    )


def test_an_output_yet_to_come_is_fine_and_not_created(tmp_path: Path) -> None:
    checks = check_all(zero_shot, None, str(tmp_path / "new" / "out"))
    assert all(check.ok for check in checks)
    assert not (tmp_path / "new").exists()


def test_a_wrong_configuration_does_not_stop_the_other_answers(album: ProtectedAlbum) -> None:
    checks = by_name(
        check_all(lambda: load_config(overrides=["sead=1"]), str(album.input), str(album.output))
    )
    assert not checks["configuration"].ok
    assert "did you mean" in checks["configuration"].detail
    assert checks["INPUT"].ok


def test_nested_paths_and_missing_or_empty_inputs_fail(tmp_path: Path) -> None:
    inside = by_name(check_all(zero_shot, str(tmp_path), str(tmp_path / "out")))
    assert not inside["paths"].ok
    assert not inside["INPUT"].ok
    assert inside["INPUT"].remedy is not None
    gone = by_name(check_all(zero_shot, str(tmp_path / "nowhere")))
    assert "does not exist" in gone["INPUT"].detail


def test_a_store_without_exclusive_creation_needs_a_decision(
    album: ProtectedAlbum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "probe_exclusive_creation", lambda self: False)
    refused = by_name(check_all(zero_shot, None, str(album.output)))["OUTPUT store"]
    assert not refused.ok
    assert "single_writer" in str(refused.remedy)
    single = load_config("zero-shot", overrides=["single_writer=true"])
    assert by_name(check_all(lambda: single, None, str(album.output)))["OUTPUT store"].ok


def test_a_held_lock_fails_and_names_its_holder(album: ProtectedAlbum) -> None:
    with OutputLock(album.store, "run-7"):
        lock = by_name(check_all(zero_shot, None, str(album.output)))["OUTPUT lock"]
    assert not lock.ok
    assert lock.detail.startswith("run run-7 on host")
    assert "--wait" in str(lock.remedy)


def test_a_folder_that_cannot_be_written_is_a_trouble_with_a_remedy(album: ProtectedAlbum) -> None:
    with forbidden(album.output, mode=0o500):
        check = by_name(check_all(zero_shot, None, str(album.output)))["OUTPUT"]
    assert not check.ok
    assert "credentials" in str(check.remedy)


def test_missing_models_are_named_with_the_remedy() -> None:
    config = load_config(
        "zero-shot",
        overrides=["recognisers=[{name: own, kind: arcface_onnx, path: /nowhere.onnx}]"],
    )
    check = by_name(check_all(lambda: config))["model own"]
    assert not check.ok
    assert "no ONNX file at /nowhere.onnx" in str(check.remedy)
