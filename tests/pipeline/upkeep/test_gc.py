"""``gc`` removes what nothing needs, and nothing else."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.catalog.folder import read_catalog
from pipeline.cli import app
from pipeline.config import OperationSettings, load_config
from pipeline.errors import ConfigurationError, LockHeldError
from pipeline.inspection.status import read_status, status_lines
from pipeline.inspection.verify import verify_output
from pipeline.output.fold import Fold
from pipeline.output.lock import OutputLock
from pipeline.output.manifest import newest_state
from pipeline.output.runs import finish_run
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.storage.store import Store
from pipeline.upkeep.gc import collect_garbage, garbage_lines
from tests.pipeline.mortal_run import Killed, MortalStore
from tests.pipeline.protected_album import ProtectedAlbum


def held(store: Store) -> dict[str, str]:
    """Every object's hash by its key, locks aside."""
    keys = [info.key for info in store.list() if not info.key.startswith("locks/")]
    return {key: store.sha256_of(key) for key in keys}


def test_what_is_left_of_a_finished_run_is_what_readers_need(store: Store, tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, output_uri=store.uri)
    before, states = held(store), newest_state(store)
    report = collect_garbage(store, older_than_s=0)
    after = held(store)
    assert {key.split("/")[0] for key in after} == {"images", "manifest", "runs"}
    assert sorted(key for key in after if key.startswith("runs/")) == [
        "runs/run-1/_FINISHED.json",
        "runs/run-1/run.json",
    ]
    assert after.items() < before.items()
    assert report.objects == {"attempts": 2, "commits": 2, "plans": 1}
    assert sum(report.num_bytes.values()) > 1000
    assert newest_state(store) == states
    assert verify_output(store.uri, str(album.input)).num_findings == 0
    assert "planned" not in "\n".join(status_lines(read_status(store)))
    assert collect_garbage(store, older_than_s=0).objects == {}


def test_a_dry_run_says_the_same_and_writes_nothing(local_store: Store, tmp_path: Path) -> None:
    ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    before = sorted(info.key for info in local_store.list())
    dry = collect_garbage(local_store, older_than_s=0, dry_run=True)
    assert sorted(info.key for info in local_store.list()) == before
    assert garbage_lines(dry)[-1].startswith("would remove 5 objects, ")
    wet = collect_garbage(local_store, older_than_s=0)
    assert (wet.objects, wet.num_bytes) == (dry.objects, dry.num_bytes)
    assert garbage_lines(wet)[-1].startswith("removed 5 objects, ")


def test_an_unfinished_run_keeps_all_that_the_next_one_finishes_it_with(
    local_store: Store, tmp_path: Path
) -> None:
    ProtectedAlbum(tmp_path, finish=False, output_uri=local_store.uri)
    before = held(local_store)
    report = collect_garbage(local_store, older_than_s=0)
    assert held(local_store) == before
    assert sum(report.kept_runs.values()) == 1
    Fold(local_store, "run-1")()
    assert {state.status for state in newest_state(local_store).values()} == {"protected"}


def test_a_decision_that_came_after_the_end_of_its_run_is_kept(
    local_store: Store, tmp_path: Path
) -> None:
    album = ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    album.begin("run-2", album.sets[:1])
    finish_run(local_store, "run-2", {})
    album.commit("run-2", album.sets[0])
    before = {key for key in held(local_store) if "run-2" in key}
    assert any("/data/" in key for key in before)
    collect_garbage(local_store, older_than_s=0)
    assert {key for key in held(local_store) if "run-2" in key} == before


def test_a_run_that_finished_lately_stays(local_store: Store, tmp_path: Path) -> None:
    ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    before = held(local_store)
    report = collect_garbage(local_store, older_than_s=3600)
    assert held(local_store) == before
    assert report.kept_runs == {"finished lately": 1}


def test_a_run_id_used_again_decides_anew_though_its_commits_are_gone(
    local_store: Store, tmp_path: Path
) -> None:
    album = ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    rules = DecisionRules("d" * 64, retry_failed=True)
    album.begin("nightly", album.sets[:1])
    album.commit("nightly", album.sets[0], has_outputs=False, status="failed", reason="ValueError")
    Fold(local_store, "nightly")()
    finish_run(local_store, "nightly", {})
    catalog, config = read_catalog(str(album.input), OperationSettings()), load_config("zero-shot")
    (retried,) = plan_against_output(catalog, local_store, config, rules, "nightly").photo_sets
    album.commit("nightly", retried, has_outputs=False, status="failed", reason="ValueError")
    Fold(local_store, "nightly")()
    collect_garbage(local_store, older_than_s=0)
    (again,) = plan_against_output(catalog, local_store, config, rules, "nightly").photo_sets
    assert (again.key, again.generation) == (retried.key, 1)
    album.commit("nightly", again)
    assert Fold(local_store, "nightly")() == 1
    assert {state.status for state in newest_state(local_store).values()} == {"protected"}


def test_what_killed_writers_left_goes_once_nobody_can_be_writing_it(
    local_store: Store, tmp_path: Path
) -> None:
    ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    root = Path(local_store.uri.removeprefix("file://"))
    left = root / "images/ann/.dladiff-0123.tmp", root / "locks/probe-0123"
    fresh = root / "images/ann/.dladiff-4567.tmp", root / "locks/clock-4567"
    (root / "locks").mkdir()
    for path in (*left, *fresh):
        path.write_bytes(b"half")
    for path in left:
        os.utime(path, (0, 0))
    dry = collect_garbage(local_store, older_than_s=0, dry_run=True)
    assert (dry.objects["temporary files"], dry.num_bytes["temporary files"]) == (2, 8)
    assert collect_garbage(local_store, older_than_s=0).objects == dry.objects
    assert [path.exists() for path in (*left, *fresh)] == [False, False, True, True]


def test_gc_killed_anywhere_and_done_again_removes_the_rest(tmp_path: Path) -> None:
    whole = ProtectedAlbum(tmp_path / "whole").store
    counting = MortalStore(whole.uri)
    collect_garbage(counting, older_than_s=0)
    names = {key.rpartition("/")[2] for key in held(whole)}
    for at in range(1, counting.num_changes + 1):
        folder = tmp_path / str(at)
        dying = MortalStore(ProtectedAlbum(folder).store.uri)
        dying.dies_at = at
        with pytest.raises(Killed):
            collect_garbage(dying, older_than_s=0)
        again = MortalStore(dying.uri)
        again.seconds_later = 1e6
        collect_garbage(again, older_than_s=0)
        assert {key.rpartition("/")[2] for key in held(again)} == names
        assert verify_output(again.uri, str(folder / "in")).num_findings == 0


def test_gc_waits_for_no_run_and_refuses(local_store: Store, tmp_path: Path) -> None:
    ProtectedAlbum(tmp_path, output_uri=local_store.uri)
    before = held(local_store)
    with OutputLock(local_store, "run-2"), pytest.raises(LockHeldError, match="run-2"):
        collect_garbage(local_store, older_than_s=0)
    assert held(local_store) == before
    with pytest.raises(ConfigurationError, match="there is no OUTPUT"):
        collect_garbage(Store(str(tmp_path / "nowhere")), older_than_s=0)


@pytest.mark.usefixtures("restored_logging")
def test_the_command_understands_ages_and_counts(tmp_path: Path) -> None:
    output = ProtectedAlbum(tmp_path).store.uri
    run = CliRunner()
    by_default = run.invoke(app, ["gc", output], prog_name="dladiff")
    assert by_default.exit_code == 0
    assert by_default.stdout.splitlines()[-1] == "removed 0 objects, 0 B"
    assert '"commits": 2' in run.invoke(app, ["gc", output, "--older-than", "0s", "--json"]).stdout
    wrong = run.invoke(app, ["gc", output, "--older-than", "soon"], prog_name="dladiff")
    assert wrong.exit_code == 1
    assert "as in 12h" in wrong.stderr
