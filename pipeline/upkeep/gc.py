"""``dladiff gc``: removes from OUTPUT what no run, no reader and no person needs any more.

Touches neither ``images/`` nor ``manifest/``, nor a run that is not finished.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.output.manifest import require_output
from pipeline.output.manifest_parts import parts_so_far
from pipeline.output.recovery import ABANDONED_S
from pipeline.output.runs import LOGS, list_runs, make_run_id, read_finished, run_key
from pipeline.reporting.words import format_bytes, format_count
from pipeline.storage.store import ObjectInfo, Store

_RECORDS = {
    "attempts/": "attempts",
    "commits/": "commits",
    "data/": "staged photos",
    LOGS: "logs",
}
"""What a finished run leaves that its manifest rows make needless, by its place in the run."""

_KINDS = (*_RECORDS.values(), "plans", "temporary files")


@dataclass
class GarbageReport:
    """What was removed, or would be; carries no names of persons."""

    dry_run: bool
    objects: dict[str, int] = field(default_factory=dict)
    """Objects by kind."""
    num_bytes: dict[str, int] = field(default_factory=dict)
    """Their bytes by kind."""
    kept_runs: dict[str, int] = field(default_factory=dict)
    """Runs left alone, by why."""


def collect_garbage(store: Store, older_than_s: float, dry_run: bool = False) -> GarbageReport:
    """Removes records of finished runs, and what killed processes left behind.

    Killed anywhere and done again, it removes the rest. What stays of a run is what it was asked
    (``run.json``), its end and its metrics.

    Args:
        store: OUTPUT.
        older_than_s: Runs that finished more recently stay as they are.
        dry_run: Only say what would go; takes no lock and writes nothing.

    Raises:
        ConfigurationError: If there is no OUTPUT.
        LockHeldError: If a run works on OUTPUT.
    """
    require_output(store)
    report = GarbageReport(dry_run)
    if dry_run:
        _collect(store, older_than_s, report, lambda _: None)
        return report
    with OutputLock(store, f"gc-{make_run_id({})}") as lock:

        def delete(found: Iterable[ObjectInfo]) -> None:
            if not lock.regain():
                raise LockLostError("OUTPUT's lock is lost or was not renewed: gc stops")
            store.delete(info.key for info in found)

        _collect(store, older_than_s, report, delete)
    return report


def garbage_lines(report: GarbageReport) -> list[str]:
    """The same for a person."""
    verb = "would remove" if report.dry_run else "removed"
    lines = [
        f"{kind:16}{report.objects[kind]:,} ({format_bytes(report.num_bytes[kind])})"
        for kind in _KINDS
        if kind in report.objects
    ]
    lines += [
        f"{'kept':16}{format_count(number, 'run')}: {why}"
        for why, number in sorted(report.kept_runs.items())
    ]
    total = format_count(sum(report.objects.values()), "object")
    return [*lines, f"{verb} {total}, {format_bytes(sum(report.num_bytes.values()))}"]


_Delete = Callable[[Iterable[ObjectInfo]], None]


def _collect(store: Store, older_than_s: float, report: GarbageReport, delete: _Delete) -> None:
    for run_id in list_runs(store):
        why = _needed(store, run_id, older_than_s)
        if why is not None:
            report.kept_runs[why] = report.kept_runs.get(why, 0) + 1
            continue
        for folder, kind in _RECORDS.items():
            _take(store.list(run_key(run_id, folder)), kind, report, delete)
        _take(store.list(run_key(run_id, "plan")), "plans", report, delete)
    # Younger ones may have a living writer, whatever age a person allows.
    oldest = max(older_than_s, ABANDONED_S)
    leftovers = chain(store.temporaries(oldest), _forgotten_probes(store, oldest))
    _take(leftovers, "temporary files", report, delete)


def _take(found: Iterable[ObjectInfo], kind: str, report: GarbageReport, delete: _Delete) -> None:
    infos = [*found]
    if infos:
        delete(infos)
        report.objects[kind] = report.objects.get(kind, 0) + len(infos)
        size = sum(info.size for info in infos)
        report.num_bytes[kind] = report.num_bytes.get(kind, 0) + size


def _needed(store: Store, run_id: str, older_than_s: float) -> str | None:
    """Why a run's records have to stay; None: nothing needs them."""
    finished = read_finished(store, run_id)
    if finished is None:
        return "not finished; the next `dladiff protect` finishes it"
    if _age_s(finished) < older_than_s:
        return "finished lately"
    folded, _ = parts_so_far(store, run_id)
    if any(name not in folded for name in Ledger(store, run_id).commit_names()):
        # A worker decided after the run's end: nobody has published that.
        return "holds decisions that are not in the manifest"
    return None


def _age_s(finished: dict[str, Any]) -> float:
    return time.time() - datetime.fromisoformat(finished["finished_at"]).timestamp()


def _forgotten_probes(store: Store, older_than_s: float) -> Iterable[ObjectInfo]:
    """Objects by which a run that was killed asked the store for its clock or its abilities."""
    limit = time.time() - older_than_s
    for info in chain(store.list("locks/probe-"), store.list("locks/clock-")):
        if info.modified < limit:
            yield info
