"""``dladiff status``: a run in numbers, while it works and afterwards. Reads only."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow.compute as pc

from pipeline.errors import ConfigurationError
from pipeline.manifest_row import NEVER_NULL, ManifestRow
from pipeline.output.audits import Audit, read_audit
from pipeline.output.gate import read_verdict, waiting_records
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockHolder, read_lock
from pipeline.output.manifest import manifest_tables, newest_tables
from pipeline.output.runs import LOGS, list_runs, read_finished, read_plan, read_run, run_key
from pipeline.reach import REACH_COLUMNS, Reach
from pipeline.reporting.audit_words import audit_table
from pipeline.reporting.labelled import chosen_label, output_label
from pipeline.reporting.reach_words import NONE_REACHED, left_out_text, target_text
from pipeline.reporting.words import format_count, format_duration
from pipeline.storage.store import Store

_ROWS_AT_A_TIME = 1000
_RECENT_S = 600.0
"""Throughput of an unfinished run is that of so many last seconds."""


@dataclass
class RunStatus:
    """One run in numbers; carries no names of persons."""

    run_id: str
    state: Literal["finished", "working", "stopped"]
    """``working``: holds the lock and was heard of within the lock's life; ``stopped``: neither
    that nor finished, run again."""
    started_at: str
    finished_at: str | None = None
    exit_code: int | None = None
    num_planned: int | None = None
    """Photos; None: the run has not planned yet."""
    num_planned_sets: int | None = None
    num_sets: int = 0
    """Photo sets decided."""
    counts: dict[str, int] = field(default_factory=dict)
    """Photos by status."""
    causes: dict[str, int] = field(default_factory=dict)
    """Deferred photos by cause."""
    photos_per_s: float = 0.0
    seconds_left: float | None = None
    seconds: float = 0.0
    """From its start to its end or last decision."""
    lock: LockHolder | None = None
    """Who holds OUTPUT now, this run or another."""
    output_counts: dict[str, int] = field(default_factory=dict)
    """Newest decisions on all photos that OUTPUT knows, by status, of every run."""
    output_below_target: int = 0
    """Protected photos that missed their target likeness."""
    reach: Reach = field(default_factory=Reach)
    """Which photos of the run reached their target, and which faces it left out."""
    looks_jod: tuple[float, float] | None = None
    """What faces of the run keep at twice their size, in JOD: mean and worst photo."""
    num_runs: int = 1
    audit: Audit | None = None
    """What a quick attack on a few of the run's photo sets found; None: there was none."""
    num_held: int = 0
    """Photos of the run that are computed and wait for the gate of its method."""
    gate: str | None = None
    """Why that gate is closed, once it was judged."""
    label: str = ""
    """Label ``output`` of this OUTPUT's metrics."""
    logs_uri: str = ""
    """Where the run's processes keep what they say."""


def read_status(store: Store, run_id: str | None = None) -> RunStatus:
    """Reads a run's numbers from OUTPUT.

    Args:
        run_id: None: the run that was started last.

    Raises:
        ConfigurationError: If there is no such run, naming those there are.
    """
    runs = list_runs(store)
    if not runs:
        raise ConfigurationError(f"{store.uri} knows no runs: nothing was protected here yet")
    if run_id is None:
        run_id = max(runs, key=lambda name: (read_run(store, name) or {}).get("started_at", ""))
    if run_id not in runs:
        raise ConfigurationError(
            f"no run {run_id!r} in {store.uri}; newest: {', '.join(runs[-5:])}"
        )
    record, lock = read_run(store, run_id) or {}, read_lock(store)
    finished = read_finished(store, run_id)
    is_working = lock is not None and lock.run_id == run_id and lock.is_alive
    counts, num_below_target = _counts_of_output(store)
    status = RunStatus(
        run_id=run_id,
        state="finished" if finished else "working" if is_working else "stopped",
        started_at=record.get("started_at", ""),
        lock=lock,
        output_counts=counts,
        output_below_target=num_below_target,
        num_runs=len(runs),
        audit=read_audit(store, run_id),
        label=output_label(store.uri, chosen_label(record)),
        logs_uri=store.uri_of(run_key(run_id, LOGS)),
    )
    _add_plan(status, store)
    if finished is None:
        _add_commits(status, store)
        _add_held(status, store, record.get("method_digest"))
    else:
        _add_summary(status, store, finished)
    return status


def _counts_of_output(store: Store) -> tuple[dict[str, int], int]:
    """Newest decisions by status, and how many of them missed their target."""
    counts, num_below = Counter[str](), 0
    for table in newest_tables(store, ("status", "target_met")):
        for one in pc.value_counts(table["status"]).to_pylist():
            counts[one["values"]] += one["counts"]
        num_below += pc.sum(pc.equal(table["target_met"], False)).as_py() or 0
    return dict(counts), num_below


def _add_plan(status: RunStatus, store: Store) -> None:
    try:
        plan = read_plan(store, status.run_id, ("num_photos",))
    except FileNotFoundError:
        return
    status.num_planned = pc.sum(plan["num_photos"]).as_py() or 0
    status.num_planned_sets = len(plan)


def _add_summary(status: RunStatus, store: Store, finished: Mapping[str, Any]) -> None:
    """Numbers of a finished run: its rows are in the manifest, the rest in its summary."""
    columns = {*NEVER_NULL, *REACH_COLUMNS, "reason", "set_key", "run_id", "face_visibility_jod"}
    counts, causes, sets = Counter[str](), Counter[str](), set[str]()
    reach, looks = Reach(), _Looks()
    for table in manifest_tables(store, sorted(columns)):
        rows = table.filter(pc.equal(table["run_id"], status.run_id))
        for batch in rows.to_batches(_ROWS_AT_A_TIME):
            values = batch.to_pylist()
            reach += Reach.of(map(ManifestRow.from_columns, values))
            looks.add(row["face_visibility_jod"] for row in values)
            counts.update(row["status"] for row in values)
            causes.update(row["reason"] for row in values if row["status"] == "deferred")
            sets.update(row["set_key"] for row in values if row["set_key"] is not None)
    status.reach, status.looks_jod, status.counts = reach, looks.mean_and_worst, dict(counts)
    status.num_sets, status.causes = len(sets), dict(causes)
    status.finished_at = finished.get("finished_at")
    status.exit_code = finished.get("exit_code")
    status.seconds = _seconds_between(status.started_at, status.finished_at)
    num_decided = sum(status.counts.values()) - status.counts.get("deferred", 0)
    status.photos_per_s = finished.get("photos_per_s") or (
        num_decided / status.seconds if status.seconds else 0.0
    )


def _add_commits(status: RunStatus, store: Store) -> None:
    """Numbers of an unfinished run, from its commit records; the manifest may lag behind."""
    counts: Counter[str] = Counter()
    reach = Reach()
    decided: list[tuple[float, int]] = []
    looks = _Looks()
    for commit in Ledger(store, status.run_id).commits():
        counts.update(commit.statuses())
        reach += Reach.of(staged.row for staged in commit.rows)
        looks.add(staged.row.face_visibility_jod for staged in commit.rows)
        decided.append((_timestamp(commit.committed_at), commit.num_photos))
    status.counts, status.num_sets, status.reach = dict(counts), len(decided), reach
    status.looks_jod = looks.mean_and_worst
    if not decided:
        status.seconds = _seconds_between(status.started_at, None)
        return
    begin, end = _timestamp(status.started_at), max(time for time, _ in decided)
    if status.state == "working":
        end = max(end, datetime.now(UTC).timestamp())
    status.seconds = max(0.0, end - begin)
    since = max(begin, end - _RECENT_S)
    recent = sum(number for time, number in decided if time >= since)
    status.photos_per_s = recent / (end - since) if end > since else 0.0
    if status.num_planned is not None and status.photos_per_s and status.state == "working":
        left = max(0, status.num_planned - counts.total())
        status.seconds_left = left / status.photos_per_s


class _Looks:
    """Mean and worst of what faces keep, over any number of photos."""

    def __init__(self) -> None:
        self._sum, self._number, self._worst = 0.0, 0, math.inf

    def add(self, jods: Iterable[float | None]) -> None:
        for jod in jods:
            if jod is not None:
                self._sum, self._number = self._sum + jod, self._number + 1
                self._worst = min(self._worst, jod)

    @property
    def mean_and_worst(self) -> tuple[float, float] | None:
        return (self._sum / self._number, self._worst) if self._number else None


def _add_held(status: RunStatus, store: Store, method_digest: str | None) -> None:
    status.num_held = sum(record.num_photos for record in waiting_records(store, status.run_id))
    if status.num_held and method_digest:
        status.gate = (read_verdict(store, method_digest) or {}).get("why")


def status_lines(status: RunStatus) -> list[str]:
    """The same for a person."""
    counts = ", ".join(f"{name} {number:,}" for name, number in sorted(status.counts.items()))
    none = f", {NONE_REACHED}" if status.reach.all_missed else ""
    lines = [f"run         {status.run_id}, {status.state}" + _exit_text(status.exit_code) + none]
    if status.started_at:
        lines.append(f"started     {status.started_at[:19]} UTC, {format_duration(status.seconds)}")
    if status.num_planned is None and status.state != "finished":  # else gc has removed the plan
        lines.append("planned     nothing yet")
    elif status.num_planned is not None:
        sets = format_count(status.num_planned_sets or 0, "set")
        lines.append(f"planned     {format_count(status.num_planned, 'photo')} in {sets}")
    lines.append(f"decided     {counts or 'nothing'} ({format_count(status.num_sets, 'set')})")
    if text := target_text(status.reach):
        lines.append(f"target      {text}")
    if status.looks_jod is not None:
        mean, worst = status.looks_jod
        lines.append(
            f"looks       {mean:.2f} of 10 JOD at twice a face's size, {worst:.2f} the worst"
        )
    if text := left_out_text(status.reach):
        lines.append(f"left out    {text}")
    lines += [f"deferred    {number:,} by {cause}" for cause, number in status.causes.items()]
    if status.num_held:
        why = status.gate or "the first sets of these settings are not judged yet"
        lines.append(f"held back   {format_count(status.num_held, 'photo')}: {why}")
    if status.photos_per_s:
        lines.append(f"throughput  {status.photos_per_s:.2g} photos/s")
    if status.seconds_left is not None:
        lines.append(f"left        about {format_duration(status.seconds_left)}")
    lines.append(f"lock        {_lock_text(status.lock)}")
    if status.gate:
        lines.append(
            "next        other thresholds of operation.canary, --canary 0, or other settings"
        )
    elif status.state == "stopped":
        lines.append("next        run `dladiff protect` again: it finishes this run and goes on")
    if status.state == "stopped" or status.exit_code:
        lines.append(f"logs        {status.logs_uri}")
    total = ", ".join(f"{name} {number:,}" for name, number in sorted(status.output_counts.items()))
    below = status.output_below_target
    lines.append(
        f"OUTPUT      {total or 'no photo decided'}"
        + (f" ({below:,} below their target)" if below else "")
        + f", {format_count(status.num_runs, 'run')}"
        + f"; in metrics {status.label}"
    )
    if status.audit is not None:
        lines += [f"{name}: {value}" for name, value in audit_table(status.audit)]
    return lines


def _exit_text(exit_code: int | None) -> str:
    return "" if exit_code is None else f", exit code {exit_code}"


def _lock_text(lock: LockHolder | None) -> str:
    if lock is None:
        return "free"
    silent = format_duration(lock.silent_s)
    text = f"run {lock.run_id} on host {lock.host}, last sign of life {silent} ago"
    if lock.is_alive:
        return text
    life = format_duration(lock.ttl_s)
    return f"{text}, more than the lock's life of {life}: dead, or cut off from OUTPUT"


def _timestamp(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() if iso else 0.0


def _seconds_between(begin: str, end: str | None) -> float:
    if not begin:
        return 0.0
    until = _timestamp(end) if end else datetime.now(UTC).timestamp()
    return max(0.0, until - _timestamp(begin))
