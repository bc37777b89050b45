"""What is known of the protection and of the checkpoint before anything is attacked."""

from collections.abc import Iterable, Mapping
from typing import Any

from dladiff.weight_files import checkpoint_folder
from pipeline.evaluation.people import is_output
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.output.runs import list_runs, read_run
from pipeline.storage.store import open_store


def encoders_in_loss(trees: Iterable[str]) -> frozenset[str]:
    """Names of the encoders that were in a loss, from the records of the runs that made a tree.

    Of a tree that is no OUTPUT nothing is known; a person says it with ``--in-loss``.
    """
    names: set[str] = set()
    for uri in trees:
        if is_output(uri):
            store = open_store(uri)
            for run_id in list_runs(store):
                record = read_run(store, run_id) or {}
                names |= _encoder_names((record.get("config") or {}).get("method") or {})
    return frozenset(names)


def _encoder_names(settings: Mapping[str, Any]) -> set[str]:
    """Encoders of all parts of a method that are switched on, without those that only measure."""
    names: set[str] = set()
    if settings.get("enabled") is False:
        return names
    for key, value in settings.items():
        if isinstance(value, Mapping):
            names |= _encoder_names(value)
        elif "encoders" in key and isinstance(value, list):
            names |= {item["name"] for item in value if not item.get("held_out", False)}
    return names


def checkpoint_has_template(settings: EvaluationSettings) -> bool:
    """Whether a checkpoint is one of aligned faces, as its ``face_template.json`` says."""
    folder = checkpoint_folder(settings.surrogate)
    return folder is not None and (folder / "face_template.json").is_file()
