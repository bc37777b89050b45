"""A run's own folder: what it was asked, what it planned, and that it finished.

Knows ``runs/<id>/{run.json, plan.parquet, _FINISHED.json}``. OUTPUT's memory is the manifest;
a run id is only a label.
"""

import io
import json
import os
import re
import secrets
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.clock import utc_now
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.records import PhotoSet
from pipeline.storage.store import Store

RUN_ID_VARIABLE = "DLADIFF_RUN_ID"
"""Environment variable with the RayJob's name, so that its retries continue the same run."""

LOGS = "logs/"
"""Folder of a run with what its processes said, see ``reporting.kept_logs``."""

PLAN_SCHEMA = pa.schema(
    [
        ("set_key", pa.string()),
        ("generation", pa.int32()),
        ("identity", pa.string()),
        ("num_photos", pa.int32()),
        ("num_reference", pa.int32()),
        ("source_bytes", pa.int64()),
        ("photo_set", pa.string()),
    ]
)
"""One row per photo set; ``photo_set`` is its JSON, the other columns are for counting."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PLAN_ROWS = 5000
"""Photo sets of a file: what writing and reading a plan holds in memory at a time."""
_PLAN = re.compile(r"plan(-\d{6})?\.parquet")


def make_run_id(environment: Mapping[str, str] = os.environ) -> str:
    """The RayJob's name where the environment gives it, else UTC time and 4 hex digits.

    Raises:
        ConfigurationError: If the environment's value can't be a folder name.
    """
    name = environment.get(RUN_ID_VARIABLE)
    if name:
        return check_run_id(name)
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def check_run_id(run_id: str) -> str:
    """``run_id`` itself, if it can be part of a key.

    Raises:
        ConfigurationError: Otherwise.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigurationError(
            f"run id {run_id!r}: expected at most 63 of [A-Za-z0-9._-], not starting with a sign"
        )
    return run_id


def run_key(run_id: str, name: str) -> str:
    """Key of something in a run's folder."""
    return f"runs/{run_id}/{name}"


def start_run(store: Store, run_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``run.json`` before any work, or finds that a run of this id was begun before.

    Args:
        content: Configuration, digests, INPUT, versions; JSON values.

    Returns:
        What ``run.json`` holds: ``content`` of the first start with ``run_id``, ``output``,
        ``started_at``, ``host`` and ``pid``.
    """
    check_run_id(run_id)
    record = {
        **content,
        "run_id": run_id,
        "output": store.uri,
        "started_at": utc_now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start_token": secrets.token_hex(8),  # two starts never write equal bytes
    }
    key = run_key(run_id, "run.json")
    if store.create_exclusive(key, _to_json(record)):
        return record
    found = read_run(store, run_id)
    if found is None:
        raise PipelineError(f"run {run_id} vanished while it was being started")
    return found


def read_run(store: Store, run_id: str) -> dict[str, Any] | None:
    """What ``run.json`` holds, None if there is no such run."""
    return _read_json(store, run_key(run_id, "run.json"))


def method_of_run(store: Store, run_id: str) -> dict[str, Any] | None:
    """The ``method`` settings of an earlier run, to show what changed; None: not known."""
    method = ((read_run(store, run_id) or {}).get("config") or {}).get("method")
    return method if isinstance(method, dict) else None


def list_runs(store: Store) -> list[str]:
    """Ids of all runs that OUTPUT knows, in name order."""
    return sorted(name for name in store.folders("runs/") if _RUN_ID.fullmatch(name))


def unfinished_runs(store: Store) -> list[str]:
    """Ids of runs without ``_FINISHED.json``, oldest first: their commits must be folded.

    One that ended before it had begun, and left its log alone, is none.
    """
    found = []
    for name in list_runs(store):
        if not is_finished(store, name):
            run = read_run(store, name)
            if run is not None or not _holds_logs_alone(store, name):
                found.append(((run or {}).get("started_at", ""), name))
    return [name for _, name in sorted(found)]


def is_begun(store: Store) -> bool:
    """Whether any run has planned for this OUTPUT."""
    return any(not _holds_logs_alone(store, name) for name in list_runs(store))


def _holds_logs_alone(store: Store, run_id: str) -> bool:
    logs = run_key(run_id, LOGS)
    return all(info.key.startswith(logs) for info in store.list(run_key(run_id, "")))


def is_finished(store: Store, run_id: str) -> bool:
    """Whether all that the run decided is in the manifest and nothing more will come."""
    return store.exists(run_key(run_id, "_FINISHED.json"))


def read_finished(store: Store, run_id: str) -> dict[str, Any] | None:
    """The summary of a finished run, None while it is not finished."""
    return _read_json(store, run_key(run_id, "_FINISHED.json"))


def finish_run(store: Store, run_id: str, summary: Mapping[str, Any]) -> None:
    """Declares a run finished; call it after the last fold, holding the lock.

    Args:
        summary: Counts and exit code, JSON values; ``run_id`` and ``finished_at`` are added.
    """
    record = {**summary, "run_id": run_id, "finished_at": utc_now()}
    store.write(run_key(run_id, "_FINISHED.json"), _to_json(record))
    # What is left are outputs of attempts that crashed or lost: nothing refers to them.
    store.delete(info.key for info in store.list(run_key(run_id, "data/")))


def write_plan(store: Store, run_id: str, photo_sets: Iterable[PhotoSet]) -> int:
    """Writes ``plan.parquet``, replacing the one of an earlier start under the same id.

    A large plan goes on in ``plan-000001.parquet`` and so on.

    Returns:
        Number of photo sets.
    """
    num_sets = number = 0
    rows = map(_plan_row, photo_sets)
    while number == 0 or num_sets == number * _PLAN_ROWS:
        batch = [*islice(rows, _PLAN_ROWS)]
        if number and not batch:
            break
        _write_plan_part(store, _plan_key(run_id, number), pa.Table.from_pylist(batch, PLAN_SCHEMA))
        num_sets, number = num_sets + len(batch), number + 1
    stale = set(plan_keys(store, run_id)) - {_plan_key(run_id, n) for n in range(number)}
    store.delete(stale)
    return num_sets


def plan_keys(store: Store, run_id: str) -> list[str]:
    """Keys of the files of a run's plan, in their order; none: it has no plan (yet)."""
    names = [info.key for info in store.list(run_key(run_id, "plan"))]
    found = [key for key in names if _PLAN.fullmatch(key.rpartition("/")[2])]
    return sorted(found, key=lambda key: key.removesuffix(".parquet"))


def read_plan(store: Store, run_id: str, columns: Collection[str] | None = None) -> pa.Table:
    """The plan of a run as a table of ``PLAN_SCHEMA``.

    Args:
        columns: Names to read, None for all.

    Raises:
        FileNotFoundError: If the run has none (yet).
    """
    keys = plan_keys(store, run_id)
    if not keys:
        raise FileNotFoundError(run_key(run_id, "plan.parquet"))
    return pa.concat_tables([_read_plan_part(store, key, columns) for key in keys])


def planned_sets(store: Store, run_id: str) -> Iterator[PhotoSet]:
    """The photo sets of a run's plan, a file of it at a time; none where it has no plan (yet)."""
    for key in plan_keys(store, run_id):
        for text in _read_plan_part(store, key, ("photo_set",))["photo_set"]:
            yield PhotoSet.from_json(text.as_py())


def _read_plan_part(store: Store, key: str, columns: Collection[str] | None = None) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(store.read(key)))
    names = None if columns is None else [*columns]
    return file.read(columns=names, use_threads=False)  # see manifest_parts.read_part


def _write_plan_part(store: Store, key: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(key, buffer.getvalue())


def _plan_key(run_id: str, number: int) -> str:
    return run_key(run_id, f"plan-{number:06d}.parquet" if number else "plan.parquet")


def planned_set_keys(
    store: Store, run_id: str, identities: Collection[str]
) -> list[tuple[str, str]]:
    """Identity and key of each photo set of these people in a run's plan, if it has one."""
    found: list[tuple[str, str]] = []
    for key in plan_keys(store, run_id):
        plan = _read_plan_part(store, key, ("identity", "set_key"))
        plan = plan.filter(pc.is_in(plan["identity"], value_set=_texts(identities)))
        found += zip(plan["identity"].to_pylist(), plan["set_key"].to_pylist(), strict=True)
    return found


def drop_from_plan(store: Store, run_id: str, identities: Collection[str]) -> int:
    """Rewrites a run's plan without these people's photo sets; says how many it had."""
    num_dropped = 0
    for key in plan_keys(store, run_id):
        plan = _read_plan_part(store, key)
        kept = plan.filter(pc.invert(pc.is_in(plan["identity"], value_set=_texts(identities))))
        if len(kept) < len(plan):
            _write_plan_part(store, key, kept)
        num_dropped += len(plan) - len(kept)
    return num_dropped


def _texts(values: Collection[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def _plan_row(photo_set: PhotoSet) -> dict[str, Any]:
    return {
        "set_key": photo_set.key,
        "generation": photo_set.generation,
        "identity": photo_set.identity,
        "num_photos": len(photo_set.photos),
        "num_reference": len(photo_set.references),
        "source_bytes": sum(photo.size_bytes for photo in photo_set.photos),
        "photo_set": photo_set.to_json(),
    }


def _to_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, indent=1).encode()


def _read_json(store: Store, key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(store.read(key))
    except FileNotFoundError:
        return None
    except ValueError:
        raise PipelineError(f"{store.uri_of(key)} is not JSON: was it edited?") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{store.uri_of(key)} holds no JSON object: was it edited?")
    return content
