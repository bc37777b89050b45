"""What a person sees while a run works: a live display, plain lines, or log lines.

Progress goes to stderr, the closing summary to stdout. Reads counts from a ``Tally``, which never
sees a name.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.options import EXIT_ERROR, PlanCounts, RunOutcome
from pipeline.reasons import passed_over_text
from pipeline.reporting.reach_words import NONE_REACHED, left_out_text, target_text
from pipeline.reporting.reporter import Reporter
from pipeline.reporting.tally import Tally
from pipeline.reporting.words import format_bytes, format_count, format_duration

_log = logging.getLogger("dladiff.progress")

_STAGES = {
    "starting": "starting",
    "recover": "looking at OUTPUT, finishing what earlier runs left",
    "catalog": "listing INPUT and comparing it with OUTPUT",
    "workers": "starting workers",
    "protect": "protecting",
    "fold": "writing the manifest",
    "finished": "finished",
    "audit": "attacking a few photo sets, the audit",
}
"""Stages of ``run`` for a person; another one is shown by its name."""

_SHOWN_PLACES = 20
"""Folders that are named in a run's lines."""

_Say = Callable[[str], object]
"""Takes one line for a person."""


@contextmanager
def open_display(
    tally: Tally, as_log: bool = False, interval_s: float = 10.0
) -> Iterator[Reporter]:
    """The display that fits where stderr goes, closed at the end of the block.

    Args:
        tally: The run's running numbers.
        as_log: Log lines only, e.g. for ``--log-json``.
        interval_s: Seconds between two progress lines where stderr is no terminal.
    """
    if as_log:
        with _every(interval_s, lambda: _log.info(progress_line(tally)), tally):
            yield LineReporter(_log.info, names=False)
    elif sys.stderr.isatty():
        console, summary = Console(stderr=True), list[str]()
        lines = LineReporter(
            lambda text: console.print(Text(text)), stages=False, summary=summary.append
        )
        picture = _LivePicture(tally)
        with Live(picture, console=console, refresh_per_second=2, transient=True):
            yield lines
        for line in summary:
            print(line)
    else:
        with _every(interval_s, lambda: _print_line(progress_line(tally)), tally):
            yield LineReporter(_print_line, summary=print)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; yields a function of (done, total)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def progress_line(tally: Tally) -> str:
    """One line: stage, photos decided of planned, by status, photos/s and time left."""
    if tally.plan is None:
        return f"{_stage_text(tally.stage_name)}, {format_duration(tally.seconds)}"
    parts = [
        _stage_text(tally.stage_name),
        f"{tally.num_photos:,} of {format_count(tally.plan.num_photos, 'photo')}",
        f"{tally.num_sets:,} of {format_count(tally.plan.num_sets, 'set')}",
        f"{_percent_done(tally):.1f} % done",
        *(f"{status} {number:,}" for status, number in sorted(tally.statuses.items())),
        *(f"deferred ({cause}) {number:,}" for cause, number in sorted(tally.causes.items())),
    ]
    if tally.reach.num_missed:
        parts.append(f"below target {tally.reach.num_missed:,}")
    if tally.num_held:
        parts.append(f"{tally.num_held:,} of them held back")
    if tally.photos_per_s:
        parts.append(f"{tally.photos_per_s:.2g} photos/s")
    if tally.seconds_left is not None:
        parts.append(f"about {format_duration(tally.seconds_left)} left")
    return ", ".join(parts)


def _percent_done(tally: Tally) -> float:
    """The share of the planned photos' work, with the steps of sets that are not decided yet."""
    planned = tally.plan.num_photos if tally.plan else 0
    return 100.0 * tally.photos_done / planned if planned else 100.0


def plan_line(plan: PlanCounts) -> str:
    """One line: what a run is about to do."""
    if not plan.num_photos:
        return (
            f"nothing to do: {format_count(plan.num_unchanged, 'photo')} up to date"
            + _below_target_text(plan)
            + _returned_text(plan)
            + (f", {_gone_text(plan)}" if plan.num_gone else "")
            + _forgotten_text(plan)
            + _passed_over_text(plan)
        )
    return (
        f"{format_count(plan.num_photos, 'photo')} of "
        f"{format_count(plan.num_identities, 'identity', 'identities')} in "
        f"{format_count(plan.num_sets, 'set')}, {format_bytes(plan.num_bytes)} to read; "
        f"{plan.num_unchanged:,} up to date"
        + _below_target_text(plan)
        + _returned_text(plan)
        + f", {_gone_text(plan)}"
        + _forgotten_text(plan)
        + _passed_over_text(plan)
        + (f"; {plan.num_later:,} left for a later run" if plan.num_later else "")
    )


def _below_target_text(plan: PlanCounts) -> str:
    return f" ({plan.num_below_target:,} of them below target)" if plan.num_below_target else ""


def _forgotten_text(plan: PlanCounts) -> str:
    return f", {plan.num_forgotten:,} of forgotten people" if plan.num_forgotten else ""


def _gone_text(plan: PlanCounts) -> str:
    moved = f" ({plan.num_moved:,} of them seem to have moved)" if plan.num_moved else ""
    return f"{plan.num_gone:,} gone{moved}"


def _returned_text(plan: PlanCounts) -> str:
    return f", {plan.num_returned:,} of them gone before and back" if plan.num_returned else ""


def _passed_over_text(plan: PlanCounts) -> str:
    number = sum(plan.passed_over.values())
    return f", {format_count(number, 'other file')} passed over" if number else ""


def summary_lines(outcome: RunOutcome) -> list[str]:
    """How a run ended, one statement a line."""
    counts = ", ".join(f"{status} {number:,}" for status, number in sorted(outcome.counts.items()))
    lines = [
        f"run {outcome.run_id}: {counts or 'nothing to do'}; "
        + (f"{NONE_REACHED}; " if outcome.reach.all_missed else "")
        + f"{format_duration(outcome.seconds)}"
        + (f", {outcome.photos_per_s:.2g} photos/s" if outcome.photos_per_s else "")
    ]
    lines += [
        f"deferred by {cause}: {format_count(number, 'set')}"
        for cause, number in sorted(outcome.causes.items())
    ]
    if text := target_text(outcome.reach):
        lines.append(f"target likeness {text}")
    if text := left_out_text(outcome.reach):
        lines.append(f"left out: {text}, seen and not protected")
    lines += outcome.shortfalls
    lines += _known_lines(outcome)
    if outcome.passed_over:
        others = passed_over_text(outcome.passed_over, outcome.passed_over_types)
        lines.append(f"passed over in INPUT: {others}")
    if outcome.message:
        lines.append(outcome.message)
    if outcome.num_held:
        held = format_count(outcome.num_held, "photo")
        lines.append(f"{held} computed and held back until enough of these settings can be judged")
    if outcome.num_later and outcome.exit_code != EXIT_ERROR:
        left = format_count(outcome.num_later, "photo")
        lines.append(f"{left} left for the next run: the same command goes on")
    return lines


def _known_lines(outcome: RunOutcome) -> list[str]:
    """What became of photos under other paths, and of the files of those that are gone."""
    lines = []
    if number := outcome.counts.get("copied"):
        photos = format_count(number, "photo")
        lines.append(
            f"copied {photos}: of the same content as one that OUTPUT holds under another path, "
            "whose protected file was copied; nothing was computed"
        )
    if outcome.num_handed_on:
        keys = format_count(outcome.num_handed_on, "key")
        lines.append(f"{keys} kept: of photos that lay at the same place of another INPUT")
    if outcome.num_gone:
        photos = format_count(outcome.num_gone, "photo")
        lines.append(
            f"{photos} gone from INPUT: protected files under the old keys stay, unless "
            "operation.delete_gone_outputs is on"
        )
    return lines


class LineReporter(Reporter):
    """Says the rare things in lines: stages, the plan, messages, the summary."""

    def __init__(
        self,
        say: _Say,
        stages: bool = True,
        summary: _Say | None = None,
        names: bool = True,
    ) -> None:
        """
        Args:
            say: Takes one line.
            stages: Whether to say each stage; a live display shows it anyway.
            summary: Takes the closing lines; None: ``say``.
            names: Whether the lines go to a person alone, so that they may name persons.
        """
        self._names = names
        self._say = say
        self._stages = stages
        self._summary = summary or say

    def started(self, plan: PlanCounts) -> None:
        self._say(plan_line(plan))

    def stage(self, name: str) -> None:
        if self._stages:
            self._say(_stage_text(name))

    def denied(self, places: Sequence[str]) -> None:
        folders = format_count(len(places), "folder")
        left = f"{folders} of INPUT may not be read, and photos in there stay unprotected"
        if not self._names:
            self._say(f"{left}; `dladiff plan` names them")
            return
        self._say(f"{left}:")
        for place in places[:_SHOWN_PLACES]:
            self._say(f"  {place}")
        if len(places) > _SHOWN_PLACES:
            self._say(f"  and {len(places) - _SHOWN_PLACES:,} more: `dladiff plan` names them")

    def message(self, text: str) -> None:
        self._say(text)

    def finished(self, outcome: RunOutcome) -> None:
        for line in summary_lines(outcome):
            self._summary(line)


class _LivePicture:
    """What the live display draws, anew at every refresh."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __rich__(self) -> RenderableType:
        tally = self._tally
        if tally.plan is None:
            return Text(progress_line(tally))
        table = Table.grid(padding=(0, 2))
        for status, number in sorted(tally.statuses.items()):
            table.add_row(status, f"{number:,}")
        if tally.reach.num_missed:
            table.add_row("below target", f"{tally.reach.num_missed:,}")
        for cause, number in sorted(tally.causes.items()):
            table.add_row(f"deferred ({cause})", format_count(number, "set"))
        bar = ProgressBar(100.0, _percent_done(tally), width=40)
        return Group(bar, Text(progress_line(tally)), table)


def _stage_text(name: str) -> str:
    return _STAGES.get(name, name)


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _every(interval_s: float, say: Callable[[], object], tally: Tally) -> Iterator[None]:
    """Says something every ``interval_s`` while work moves on, every sixth time otherwise.

    A thread of its own, since a set of photos may take longer than a person's patience.
    """
    end = threading.Event()

    def work() -> None:
        ticks, last = 0, -1.0
        while not end.wait(interval_s):
            ticks += 1
            percent = round(_percent_done(tally))
            if tally.plan is None or (percent == last and ticks % 6):
                continue
            last = percent
            say()

    thread = threading.Thread(target=work, name="dladiff-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
