"""What is known of the protections and of the checkpoint before anything is attacked."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from dladiff.evaluation.settings import XL_LIMITS, works_on_xl
from dladiff.weight_files import checkpoint_folder, is_xl
from pipeline.errors import ConfigurationError
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
    """Family by name of the encoders in the losses of a method, as a run's record has it.

    A record of any version: read as it is, not as today's ``MethodSettings``. What is wanting was
    on.
    """
    layer1, layer2, other = (settings.get(key) or {} for key in ("layer1", "layer2", "other"))
    likeness = layer1.get("likeness") or {}
    leads = layer1.get("enabled", True) and likeness.get("enabled", True)
    encoders = [one for one in _recognisers(settings) if one["role"] != "judge"]
    if name := other.get("name"):
        # Of the methods of other papers FaceLock alone reads a recogniser: the first one.
        encoders = encoders[: name == "facelock"]
    elif not leads:
        is_read = layer2.get("enabled", True)
        encoders = [one for one in encoders if is_read and one["role"] == "lead"]
    return {one["name"]: family_of(one.get("kind", "")) for one in encoders}


def _recognisers(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """With their roles; those of records from before there were roles, too."""
    if "recognisers" in settings:
        return [{"role": "lead", **one} for one in settings["recognisers"]]
    layer1, layer2 = (settings.get(layer) or {} for layer in ("layer1", "layer2"))
    first = [
        {**one, "role": "judge" if one.get("held_out") else "lead"}
        for one in layer2.get("encoders") or ()
    ]
    names = {one["name"] for one in first}
    more = (layer1.get("likeness") or {}).get("more_encoders") or ()
    return [*first, *({**one, "role": "beside"} for one in more if one["name"] not in names)]


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


def require_attackable(settings: EvaluationSettings) -> None:
    """Refuses before any work what cannot be done with Stable Diffusion XL.

    A checkpoint that is still on a hub is refused by the workers.

    Raises:
        ConfigurationError: With what is possible.
    """
    folder = checkpoint_folder(settings.surrogate)
    if folder is None or not is_xl(folder):
        return
    refused: list[str] = [name for name in settings.attacks if not works_on_xl(name, "none")]
    refused += [name for name in settings.handlings if not works_on_xl("zero_shot", name)]
    if refused:
        raise ConfigurationError(f"{folder}: {XL_LIMITS}, got {', '.join(refused)}")


def checkpoint_has_template(settings: EvaluationSettings) -> bool:
    """Whether a checkpoint is one of aligned faces, as its ``face_template.json`` says."""
    folder = checkpoint_folder(settings.surrogate)
    return folder is not None and (folder / "face_template.json").is_file()
