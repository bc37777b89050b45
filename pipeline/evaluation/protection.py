"""What is known of the protections and of the checkpoint before anything is attacked."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from dladiff.weight_files import checkpoint_folder
from pipeline.evaluation.families import family_of
from pipeline.evaluation.people import is_output
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.output.manifest import read_manifest
from pipeline.output.runs import list_runs, read_run
from pipeline.storage.store import Store, open_store

COST_FILE = "cost.json"
"""Beside a tree of ``tools.evaluation.protect_with``: what was spent, and on which losses."""


def encoders_in_loss(trees: Iterable[str]) -> dict[str, str]:
    """Family by name of the encoders that were in a loss, from the records that made the trees.

    Those are a run's, or ``cost.json``. Of other trees nothing is known; a person says it with
    ``--in-loss``.
    """
    found: dict[str, str] = {}
    for uri in trees:
        store = open_store(uri)
        if is_output(uri):
            for run_id in list_runs(store):
                record = read_run(store, run_id) or {}
                found |= encoders_of_method((record.get("config") or {}).get("method") or {})
        else:
            found |= _cost(store).get("encoders_in_loss") or {}
    return found


def encoders_of_method(settings: Mapping[str, Any]) -> dict[str, str]:
    """Encoders of all parts of a method that are switched on, without those that only measure."""
    found: dict[str, str] = {}
    if settings.get("enabled") is False:
        return found
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= encoders_of_method(value)
        elif "encoders" in key and isinstance(value, list):
            found |= {
                item["name"]: family_of(item.get("kind", ""))
                for item in value
                if not item.get("held_out", False)
            }
    return found


def cpu_seconds_of(trees: Mapping[str, str]) -> dict[str, float]:
    """Seconds spent on a photo by condition, where a tree says so: what a baseline must match.

    CPU seconds of ``cost.json``; of a run's OUTPUT the wall seconds of a worker's threads, by its
    manifest's median.
    """
    found = {}
    for condition, uri in trees.items():
        seconds = _seconds_of_output(uri) if is_output(uri) else None
        if seconds is None:
            seconds = _cost(open_store(uri)).get("per_photo", {}).get("cpu_seconds")
        if seconds is not None:
            found[condition] = float(seconds)
    return found


def _seconds_of_output(uri: str) -> float | None:
    store = open_store(uri)
    median: float | None = pc.approximate_median(
        read_manifest(store, ["seconds"])["seconds"]
    ).as_py()
    records = [read_run(store, run_id) or {} for run_id in list_runs(store)]
    threads = [((r.get("config") or {}).get("method") or {}).get("threads") for r in records]
    return None if median is None else median * max((t for t in threads if t), default=1)


def _cost(store: Store) -> dict[str, Any]:
    try:
        content = json.loads(store.read(COST_FILE))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def checkpoint_has_template(settings: EvaluationSettings) -> bool:
    """Whether a checkpoint is one of aligned faces, as its ``face_template.json`` says."""
    folder = checkpoint_folder(settings.surrogate)
    return folder is not None and (folder / "face_template.json").is_file()
