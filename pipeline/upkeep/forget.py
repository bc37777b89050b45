"""``dladiff forget``: removes all that OUTPUT holds of people, and refuses them from then on.

Killed anywhere and done again with the same names, it finishes: tombstones come first, and what
leads to a person's objects (plans, manifest rows) goes after these objects.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.folder import name_of_folder
from pipeline.catalog.output_keys import encode_segment
from pipeline.errors import ConfigurationError
from pipeline.manifest_row import MANIFEST_SCHEMA
from pipeline.output.ledger import Ledger
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.output.manifest import newest_state, require_output
from pipeline.output.manifest_parts import (
    drop_from_part,
    part_keys,
    read_part,
)
from pipeline.output.recovery import recover
from pipeline.output.runs import (
    drop_from_plan,
    list_runs,
    make_run_id,
    planned_set_keys,
    read_run,
    run_key,
)
from pipeline.output.tombstones import bury, readmit
from pipeline.output.unfolded import unfolded_records
from pipeline.reporting.words import format_count
from pipeline.storage.store import Store

_COLUMNS = ("identity", "source_uri", "output_uri", "set_key", "run_id")


@dataclass
class ForgetReport:
    """What was removed; carries no names."""

    num_identities: int
    num_unknown: int = 0
    """Names of which OUTPUT held nothing: misspelt, or forgotten before."""
    num_photos: int = 0
    """Originals that the manifest named."""
    num_images: int = 0
    num_records: int = 0
    """Attempts, commits and staged photos."""
    num_rows: int = 0
    """Rows of manifest and plans."""


@dataclass
class _Traces:
    """Where OUTPUT holds something of the people in question."""

    known: set[str] = field(default_factory=set)
    source_uris: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    """Keys."""
    set_keys: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Photo sets by run."""


def forget_identities(store: Store, identities: Collection[str]) -> ForgetReport:
    """Removes images, staged photos, attempts, commits, plan and manifest rows of people.

    Runs that crashed are finished first, without publishing anything of these people.

    Args:
        store: OUTPUT. A bucket with versioning keeps earlier versions of what is deleted.
        identities: Names as in the manifest's column ``identity``.

    Raises:
        ConfigurationError: If there is no OUTPUT, or no name.
        LockHeldError: If a run works on OUTPUT.
    """
    names = _checked(store, identities)
    run_id = f"forget-{make_run_id({})}"
    with OutputLock(store, run_id) as lock:
        bury(store, names)
        recover(store, run_id, lock)
        traces = _find(store, names)
        report = ForgetReport(len(names), len(names - traces.known), len(traces.source_uris))
        for step in (_delete_images, _delete_records, _drop_rows):
            if not lock.regain():
                raise LockLostError("OUTPUT's lock is lost or was not renewed: run this again")
            step(store, names, traces, report)
    return report


def readmit_identities(store: Store, identities: Collection[str]) -> int:
    """Lets later runs take these people's photos again; says how many were forgotten.

    Raises:
        ConfigurationError: If there is no OUTPUT, or no name.
        LockHeldError: If a run works on OUTPUT.
    """
    names = _checked(store, identities)
    with OutputLock(store, f"forget-{make_run_id({})}"):
        return readmit(store, names)


def forget_lines(report: ForgetReport) -> list[str]:
    """The same for a person."""
    lines = [
        f"forgotten   {format_count(report.num_identities, 'person', 'people')}: "
        f"{format_count(report.num_photos, 'photo')}",
        f"removed     {format_count(report.num_images, 'image')}, "
        f"{format_count(report.num_records, 'record')} of runs, "
        f"{format_count(report.num_rows, 'row')} of manifest and plans",
    ]
    if report.num_unknown:
        lines.append(
            f"note        OUTPUT held nothing of {format_count(report.num_unknown, 'name')}: "
            "check the spelling; refused from now on all the same"
        )
    return lines


def _checked(store: Store, identities: Collection[str]) -> frozenset[str]:
    require_output(store)
    names = frozenset(identities)
    if not names or "" in names:
        raise ConfigurationError("no name given: use --identity NAME or --list FILE")
    return names


def _find(store: Store, names: frozenset[str]) -> _Traces:
    traces = _Traces()
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in _COLUMNS])
    images_root = store.uri_of("images/")
    for key in part_keys(store):
        table = read_part(store, key, schema)
        mine = pc.is_in(table["identity"], value_set=pa.array(sorted(names), pa.string()))
        for row in table.filter(mine).to_pylist():
            traces.known.add(row["identity"])
            traces.source_uris.add(row["source_uri"])
            if (row["output_uri"] or "").startswith(images_root):
                traces.images.add(store.key_of(row["output_uri"]))
            if row["set_key"] is not None:
                traces.set_keys[row["run_id"]].add(row["set_key"])
    for run_id in list_runs(store):
        planned = planned_set_keys(store, run_id, names)
        for identity, set_key in planned:
            traces.known.add(identity)
            traces.set_keys[run_id].add(set_key)
        _add_late_decisions(store, run_id, names, traces)
    traces.images |= {key for name in names for key in _keys_below(store, name)}
    # A catalog may have given another person a key in this one's folder.
    others = (state for state in newest_state(store).values() if state.identity not in names)
    traces.images -= {state.output_key for state in others if state.output_key}
    return traces


def _keys_below(store: Store, identity: str) -> Iterator[str]:
    for info in store.list(f"images/{encode_segment(identity)}/"):
        yield info.key


def _add_late_decisions(store: Store, run_id: str, names: frozenset[str], traces: _Traces) -> None:
    """Decisions of workers that outlived their run: the manifest does not have them."""
    for record in unfolded_records(store, run_id):
        if record.identity in names:
            traces.known.add(record.identity)
            traces.set_keys[run_id].add(record.set_key)


def _delete_images(
    store: Store, names: frozenset[str], traces: _Traces, report: ForgetReport
) -> None:
    there = [key for key in sorted(traces.images) if store.exists(key)]
    store.delete(there)
    report.num_images = len(there)


def _delete_records(
    store: Store, names: frozenset[str], traces: _Traces, report: ForgetReport
) -> None:
    for run_id, set_keys in traces.set_keys.items():
        ledger = Ledger(store, run_id)
        report.num_records += sum(ledger.delete_set(set_key) for set_key in sorted(set_keys))


def _drop_rows(store: Store, names: frozenset[str], traces: _Traces, report: ForgetReport) -> None:
    for run_id in list_runs(store):
        report.num_rows += drop_from_plan(store, run_id, names)
        _redact_input(store, run_id, names)
    forgotten_sets = frozenset(key for keys in traces.set_keys.values() for key in keys)
    for key in [*part_keys(store)]:
        report.num_rows += drop_from_part(store, key, names, forgotten_sets)


def _redact_input(store: Store, run_id: str, names: frozenset[str]) -> None:
    """An album without folders is one person, named as INPUT itself."""
    record = read_run(store, run_id)
    if record is not None and name_of_folder(str(record.get("input", ""))) in names:
        content = json.dumps(record | {"input": None}, sort_keys=True, indent=1)
        store.write(run_key(run_id, "run.json"), content.encode())
