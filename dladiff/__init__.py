"""Two small perturbations that spoil fine-tuning and zero-shot customisation: mathematics only.

As a library::

    import dladiff

    protector = dladiff.Protector("balanced", device="cpu")
    protected = protector(["ann/1.jpg", "ann/2.jpg"])   # photos of one person; RGB uint8 arrays

Names are loaded when first used: importing the package imports no torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dladiff.config import MethodSettings as MethodSettings
    from dladiff.config import preset_settings as preset_settings
    from dladiff.diffusion.autoencoder import Autoencoder as Autoencoder
    from dladiff.encoders.identity_encoders import IdentityEncoder as IdentityEncoder
    from dladiff.errors import DladiffError as DladiffError
    from dladiff.errors import GradientError as GradientError
    from dladiff.errors import ModelError as ModelError
    from dladiff.models import ProtectionModels as ProtectionModels
    from dladiff.models import load_models as load_models
    from dladiff.own_losses import OwnLoss as OwnLoss
    from dladiff.photo_inputs import read_photo as read_photo
    from dladiff.protect import protect_photo_set as protect_photo_set
    from dladiff.protector import Protector as Protector
    from dladiff.results import Face as Face
    from dladiff.results import IdentityCosine as IdentityCosine
    from dladiff.results import Photo as Photo
    from dladiff.results import PhotoResult as PhotoResult
    from dladiff.results import SetResult as SetResult

try:
    __version__ = version("dladiff")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"

METHOD_VERSION = 7
"""Raised whenever the same photos and settings would give other bytes."""

_HOMES = {
    "Autoencoder": "diffusion.autoencoder",
    "DladiffError": "errors",
    "Face": "results",
    "GradientError": "errors",
    "IdentityCosine": "results",
    "IdentityEncoder": "encoders.identity_encoders",
    "MethodSettings": "config",
    "ModelError": "errors",
    "OwnLoss": "own_losses",
    "Photo": "results",
    "PhotoResult": "results",
    "ProtectionModels": "models",
    "Protector": "protector",
    "SetResult": "results",
    "load_models": "models",
    "preset_settings": "config",
    "protect_photo_set": "protect",
    "read_photo": "photo_inputs",
}
"""The public names and the modules they live in."""

__all__ = ["METHOD_VERSION", "__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dladiff' has no attribute {name!r}")
    return getattr(import_module(f"dladiff.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
