"""Logs that survive their machine, without names; also those of a run that died."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError, EnvironmentTrouble
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.runs import is_begun, unfinished_runs
from pipeline.reporting import kept_logs
from pipeline.reporting.kept_logs import kept_log
from pipeline.reporting.logs import set_up_logging
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import jpeg_bytes, write_album

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def logger() -> logging.Logger:
    return set_up_logging()


def kept(store: Store, ending: str) -> list[str]:
    """Contents of the run's logs."""
    keys = [info.key for info in store.list("runs/r/logs/") if info.key.endswith(ending)]
    return [store.read(key).decode() for key in sorted(keys)]


def lines(store: Store) -> list[dict[str, Any]]:
    return [json.loads(line) for text in kept(store, ".jsonl") for line in text.splitlines()]


def test_lines_are_kept_without_names(local_store: Store, logger: logging.Logger) -> None:
    with kept_log(local_store, "r", "driver") as log:
        logger.getChild("storage").warning("cannot read %s", "file:///in/ann/1.jpg")
        logger.debug("a debug line")
        log.end({"exit_code": 0})
    (line,) = lines(local_store)
    assert (line["level"], line["message"]) == ("warning", "cannot read <photo>")
    assert [json.loads(text) for text in kept(local_store, ".end.json")] == [{"exit_code": 0}]
    logger.warning("after the block")
    assert len(lines(local_store)) == 1


def test_many_lines_are_several_objects(
    local_store: Store, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_logs, "_MAX_LINES", 10)
    with kept_log(local_store, "r", "worker") as log:
        for number in range(25):
            logger.info("line %d", number)
            if number == 14:
                log.write_now()
        log.end()
    assert sorted(len(text.splitlines()) for text in kept(local_store, ".jsonl")) == [5, 10, 10]
    assert {line["message"] for line in lines(local_store)} == {f"line {n}" for n in range(25)}


def test_a_store_that_is_away_stops_nobody_who_logs(
    local_store: Store, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise EnvironmentTrouble("it is away")

    with kept_log(local_store, "r", "driver") as log:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", away)
            logger.info("meanwhile")
            log.write_now()
        log.end()
    assert [line["message"] for line in lines(local_store)] == ["meanwhile"]


def test_a_run_that_dies_before_it_has_begun_leaves_its_last_words(
    tmp_path: Path, local_store: Store, logger: logging.Logger
) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        _protect(tmp_path / "nowhere", local_store)
    assert "ended by ConfigurationError" in lines(local_store)[-1]["message"]
    assert str(tmp_path) not in "".join(kept(local_store, ".jsonl"))
    assert json.loads(kept(local_store, ".end.json")[0]) == {"ended_by": "ConfigurationError"}
    assert not local_store.exists("runs/r/run.json")
    assert unfinished_runs(local_store) == []
    assert not is_begun(local_store)
    write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes()})
    assert _protect(tmp_path / "in", local_store).exit_code == 0
    ends = [json.loads(text) for text in kept(local_store, ".end.json")]
    assert {end.get("exit_code") for end in ends} == {None, 0}


def _protect(source: Path, store: Store) -> RunOutcome:
    return run_protection(
        str(source), store, CONFIG, RunOptions(run_id="r"), pool=OwnProcess(store)
    )
