"""What is known of the protections and of the checkpoint before anything is attacked."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dladiff.evaluation.remover import load_remover
from dladiff.evaluation.settings import XL_LIMITS, works_on_xl
from dladiff.former_settings import record_as_now
from dladiff.weight_files import checkpoint_folder, is_xl
from pipeline.errors import ConfigurationError
from pipeline.evaluation.families import family_of
from pipeline.evaluation.people import is_output
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.output.manifest import read_manifest
from pipeline.output.runs import list_runs, read_run
from pipeline.storage.store import open_store


def encoders_in_loss(trees: Iterable[str]) -> dict[str, str]:
    """Family by name of the encoders that were in a loss, from the records of runs.

    Of other trees nothing is known; a person says it with ``--in-loss``.
    """
    found: dict[str, str] = {}
    for uri in trees:
        if is_output(uri):
            store = open_store(uri)
            for run_id in list_runs(store):
                record = read_run(store, run_id) or {}
                found |= encoders_of_method((record.get("config") or {}).get("method") or {})
    return found


def encoders_of_method(settings: Mapping[str, Any]) -> dict[str, str]:
    """Family by name of the encoders in the losses of a method, as a run's record has it.

    A record of any version: read as it is, not as today's ``MethodSettings``.
    """
    method = record_as_now(settings)
    against, other = method.get("against", "all"), method.get("other")
    encoders = [one for one in method["recognisers"] if one["role"] != "judge"]
    if other:
        # Of the methods of other papers FaceLock alone reads a recogniser: the first one.
        encoders = encoders[: other == "facelock"]
    elif against == "zero-shot" or method.get("paper") is not None:
        is_read = against != "fine-tuning"
        encoders = [one for one in encoders if is_read and one["role"] == "lead"]
    return {one["name"]: family_of(one.get("kind", "")) for one in encoders}


def cpu_seconds_of(trees: Mapping[str, str]) -> dict[str, float]:
    """Seconds spent on a photo by condition, of runs' OUTPUTs: what a baseline must match.

    The wall seconds of a worker's threads, by the manifest's median.
    """
    found = {}
    for condition, uri in trees.items():
        seconds = _seconds_of_output(uri) if is_output(uri) else None
        if seconds is not None:
            found[condition] = seconds
    return found


def _seconds_of_output(uri: str) -> float | None:
    store = open_store(uri)
    median: float | None = pc.approximate_median(
        read_manifest(store, ["seconds"])["seconds"]
    ).as_py()
    records = [read_run(store, run_id) or {} for run_id in list_runs(store)]
    threads = [((r.get("config") or {}).get("method") or {}).get("threads") for r in records]
    return None if median is None else median * max((t for t in threads if t), default=1)


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


def require_remover(settings: EvaluationSettings) -> None:
    """Loads the remover of ``unprotect`` once, so that a wrong file is refused before any work.

    Raises:
        ModelError: If it is none.
    """
    if settings.remover is not None:
        load_remover(Path(settings.remover), "cpu")


def checkpoint_has_template(settings: EvaluationSettings) -> bool:
    """Whether a checkpoint is one of aligned faces, as its ``face_template.json`` says."""
    folder = checkpoint_folder(settings.surrogate)
    return folder is not None and (folder / "face_template.json").is_file()
