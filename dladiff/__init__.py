"""Two small perturbations that spoil fine-tuning and zero-shot customisation: mathematics only.

As a library::

    method = dladiff.preset_settings("zero-shot")
    models = dladiff.load_models(method, "cpu")
    result = dladiff.protect_photo_set([dladiff.Photo("1", image)], [], models, method)

Names are loaded when first used: importing the package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dladiff.config import MethodSettings, preset_settings
    from dladiff.errors import DladiffError, GradientError, ModelError
    from dladiff.models import ProtectionModels, load_models
    from dladiff.protect import protect_photo_set
    from dladiff.results import Face, IdentityCosine, Photo, PhotoResult, SetResult

METHOD_VERSION = 2
"""Raised whenever the same photos and settings would give other bytes."""

_HOMES = {
    "config": ("MethodSettings", "preset_settings"),
    "errors": ("DladiffError", "GradientError", "ModelError"),
    "models": ("ProtectionModels", "load_models"),
    "protect": ("protect_photo_set",),
    "results": ("Face", "IdentityCosine", "Photo", "PhotoResult", "SetResult"),
}

__all__ = [
    "METHOD_VERSION",
    "DladiffError",
    "Face",
    "GradientError",
    "IdentityCosine",
    "MethodSettings",
    "ModelError",
    "Photo",
    "PhotoResult",
    "ProtectionModels",
    "SetResult",
    "load_models",
    "preset_settings",
    "protect_photo_set",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"dladiff.{module}"), name)
    raise AttributeError(f"module 'dladiff' has no attribute {name!r}")
