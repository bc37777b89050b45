"""A run's own folder."""

import re

import pytest

from pipeline.clock import utc_now
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.output.runs import (
    PLAN_SCHEMA,
    finish_run,
    is_finished,
    list_runs,
    make_run_id,
    read_finished,
    read_plan,
    read_run,
    start_run,
    unfinished_runs,
    write_plan,
)
from pipeline.records import PhotoSet
from pipeline.storage.store import Store
from tests.pipeline.mini_run import photo_set, source_photo


def test_a_run_id_is_the_job_s_name_or_time_and_chance() -> None:
    assert make_run_id({"DLADIFF_RUN_ID": "nightly-28391"}) == "nightly-28391"
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", make_run_id({}))
    for name in ("../x", "a/b", "-x", "x" * 64, "a b"):
        with pytest.raises(ConfigurationError, match="run id"):
            make_run_id({"DLADIFF_RUN_ID": name})


def test_times_sort_as_texts() -> None:
    times = [utc_now() for _ in range(100)]
    assert times == sorted(times)
    assert {len(text) for text in times} == {len("2026-01-01T00:00:00.000000+00:00")}


def test_runs_are_unfinished_until_finished_oldest_first(store: Store) -> None:
    assert list_runs(store) == unfinished_runs(store) == []
    for run_id in ("b", "a", "c"):
        start_run(store, run_id, {"method_digest": "m"})
    store.write("runs/c/data/k/attempt/0.png", b"left behind by a crashed attempt")
    assert list_runs(store) == ["a", "b", "c"]
    assert unfinished_runs(store) == ["b", "a", "c"]
    assert not is_finished(store, "c")
    finish_run(store, "c", {"exit_code": 2})
    assert is_finished(store, "c")
    assert unfinished_runs(store) == ["b", "a"]
    finished = read_finished(store, "c")
    assert finished is not None
    assert finished["exit_code"] == 2
    assert [*store.list("runs/c/data/")] == []


def test_a_run_started_again_keeps_what_it_was_asked_first(local_store: Store) -> None:
    first = start_run(local_store, "r", {"method_digest": "one"})
    again = start_run(local_store, "r", {"method_digest": "two"})
    assert again == first == read_run(local_store, "r")
    assert first["method_digest"] == "one"
    assert first["output"] == local_store.uri
    assert read_run(local_store, "none") is None


def test_a_damaged_file_is_named(local_store: Store) -> None:
    local_store.write("runs/r/run.json", b"{")
    with pytest.raises(PipelineError, match=r"runs/r/run.json is not JSON"):
        read_run(local_store, "r")


def test_the_plan_keeps_every_set(local_store: Store) -> None:
    sets = [
        photo_set([source_photo(f"p{number}/1.jpg", b"x"), source_photo(f"p{number}/2.jpg", b"yy")])
        for number in range(5001)
    ]
    assert write_plan(local_store, "r", iter(sets)) == 5001
    table = read_plan(local_store, "r")
    assert table.schema.names == PLAN_SCHEMA.names
    assert [PhotoSet.from_json(text) for text in table["photo_set"].to_pylist()] == sets
    assert table["source_bytes"][0].as_py() == 3
    assert write_plan(local_store, "r", []) == 0
    assert read_plan(local_store, "r").num_rows == 0
