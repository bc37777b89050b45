"""What a person sees while a run works, on a terminal and elsewhere."""

import io
import logging
import sys

import pytest

from pipeline.options import PlanCounts, RunOutcome
from pipeline.reporting.displays import open_display, plan_line, progress_line, summary_lines
from pipeline.reporting.reporter import DecidedSet, Reporter, Reporters
from pipeline.reporting.tally import Tally
from tests.waiting import until

PLAN = PlanCounts(
    num_photos=12, num_sets=3, num_unchanged=5, num_gone=1, num_identities=2, num_bytes=3_000_000
)
OUTCOME = RunOutcome(
    run_id="r1",
    exit_code=3,
    counts={"protected": 8, "failed": 1, "deferred": 3},
    seconds=75,
    photos_per_s=0.12,
    causes={"store_throttled": 1},
    message="stopped early: the store throttles",
)


def work_through(reporter: Reporter) -> None:
    """Calls every hook as a run does."""
    reporter.stage("catalog")
    reporter.started(PLAN)
    reporter.stage("protect")
    reporter.set_decided(DecidedSet({"protected": 4}, seconds=2.0, gpu_seconds=1.0, ages_s=[60.0]))
    reporter.set_decided(DecidedSet({"protected": 4, "failed": 1}, seconds=2.0))
    reporter.deferred("store_throttled")
    reporter.message("trying again")
    reporter.finished(OUTCOME)


def test_lines_elsewhere_than_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    with open_display(tally, interval_s=0.02) as reporter:
        work_through(Reporters(tally, reporter))
        captured = capsys.readouterr()
        assert captured.out.splitlines() == summary_lines(OUTCOME)
        progress = (
            "9 of 12 photos, 2 of 3 sets, 75.0 % done, failed 1, protected 8, "
            "deferred (store_throttled) 1"
        )
        until(lambda: progress in capsys.readouterr().err)
    assert "12 photos of 2 identities in 3 sets, 3.0 MB to read; 5 up to date, 1 gone" in (
        captured.err
    )
    assert "protecting\n" in captured.err


def test_a_terminal_gets_a_live_display(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    tally = Tally()
    with open_display(tally) as reporter:
        work_through(Reporters(tally, reporter))
        until(lambda: "9 of 12 photos" in terminal.getvalue())
    assert "━" in terminal.getvalue()
    assert "run r1" in capsys.readouterr().out


def test_log_lines_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="dladiff.progress"),
        open_display(Tally(), as_log=True) as to,
    ):
        work_through(to)
    messages = [record.getMessage() for record in caplog.records]
    assert plan_line(PLAN) in messages
    assert messages[-3:] == summary_lines(OUTCOME)


def test_the_summary_says_counts_causes_and_why() -> None:
    assert summary_lines(OUTCOME) == [
        "run r1: deferred 3, failed 1, protected 8; 1 min 15 s, 0.12 photos/s",
        "deferred by store_throttled: 1 set",
        "stopped early: the store throttles",
    ]


def test_nothing_to_do_is_said_plainly() -> None:
    plan = PlanCounts(num_photos=0, num_sets=0, num_unchanged=144)
    assert plan_line(plan) == "nothing to do: 144 photos up to date"


def test_before_the_plan_the_stage_and_the_time_are_shown() -> None:
    tally = Tally()
    tally.stage("catalog")
    assert progress_line(tally).startswith("listing INPUT and comparing it with OUTPUT, 0 s")


def test_several_reporters_hear_the_same() -> None:
    first, second = Tally(), Tally()
    work_through(Reporters(first, second, Reporter()))
    assert first.statuses == second.statuses == {"protected": 8, "failed": 1}
    assert first.causes == second.causes == {"store_throttled": 1}
