"""Before a pool starts: do the models load, and does a built-in photo get protected?"""

from pathlib import Path

from dladiff.config import MethodSettings
from dladiff.image_values import Image
from dladiff.models import ProtectionModels, load_models
from dladiff.protect import protect_photo_set
from dladiff.results import Photo
from pipeline.errors import ConfigurationError
from pipeline.worker.settings import WorkerSettings


def load_worker_models(settings: WorkerSettings) -> ProtectionModels:
    """Loads the models of a worker; sets the CPU threads, which are part of the method."""
    import torch

    # Ray sets OMP_NUM_THREADS to the actor's CPUs, which may differ from one cluster to another.
    torch.set_num_threads(settings.config.method.threads)
    cache = settings.config.operation.weights_cache
    folder = Path(cache) if cache else Path.home() / ".cache" / "dladiff"
    return load_models(settings.config.method, settings.device, folder)


def preflight(settings: WorkerSettings) -> None:
    """Loads the models and protects a built-in photo, so that a broken setup shows at once.

    Raises:
        ConfigurationError: With what failed.
    """
    protect_built_in_photo(load_worker_models(settings), settings.config.method)


def protect_built_in_photo(models: ProtectionModels, method: MethodSettings) -> None:
    """Runs every part of a method once on a photo that comes with the package.

    Raises:
        ConfigurationError: If it was not protected.
    """
    photo = Photo(key="preflight", image=_built_in_photo())
    result = protect_photo_set([photo], [], models, _shortened(method)).photos[0]
    if result.image is None:
        raise ConfigurationError(f"the built-in photo was not protected: {result.reason}")


def _built_in_photo() -> Image:
    from skimage.data import astronaut  # NASA, public domain

    photo: Image = astronaut()[0:256, 96:352]  # type: ignore[no-untyped-call]
    return photo


def _shortened(method: MethodSettings) -> MethodSettings:
    """The same method with as few iterations as exercise every part of it."""
    surrogate = method.layer1.surrogate.model_copy(update={"step0_steps": 1})
    probe = method.layer1.probe.model_copy(update={"enabled": False})
    layer1 = method.layer1.model_copy(
        update={"num_epochs": 1, "surrogate": surrogate, "probe": probe}
    )
    layer2 = method.layer2.model_copy(update={"num_steps": 3})
    return method.model_copy(update={"layer1": layer1, "layer2": layer2})
