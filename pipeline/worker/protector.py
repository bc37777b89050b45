"""The method with its models loaded: what a worker computes with.

Imports torch and the models only where they are loaded: a worker that computes with something else
starts in a fraction of the time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dladiff.config import MethodSettings
from dladiff.weight_files import user_cache
from pipeline.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from dladiff.results import Photo, SetResult


class Protector(Protocol):
    """``dladiff.protect.protect_photo_set`` with models of its own."""

    def __call__(
        self,
        photos: "Sequence[Photo]",
        references: "Sequence[Photo]",
        method: MethodSettings,
        on_progress: Callable[[str, float], None],
        /,
    ) -> "SetResult": ...


LoadProtector = Callable[[WorkerSettings], Protector]
"""Loads what computes a set, once per process."""


def load_protector(settings: WorkerSettings) -> Protector:
    """Loads all models, and sets the CPU threads, which are part of the method.

    Raises:
        ModelError: If weights are missing or damaged.
    """
    import torch

    from dladiff.models import load_models
    from dladiff.protect import protect_photo_set

    # Ray sets OMP_NUM_THREADS to the actor's CPUs, which may differ from one cluster to another.
    torch.set_num_threads(settings.config.method.threads)
    cache = settings.config.operation.weights_cache
    folder = Path(cache) if cache else user_cache()
    models = load_models(settings.config.method, settings.device, folder)

    def protect(
        photos: "Sequence[Photo]",
        references: "Sequence[Photo]",
        method: MethodSettings,
        on_progress: Callable[[str, float], None],
        /,
    ) -> "SetResult":
        return protect_photo_set(photos, references, models, method, on_progress)

    return protect
