"""Where a worker's first photos fail: does a built-in photo get protected?"""

from dladiff.config import MethodSettings
from dladiff.image_values import Image
from dladiff.results import Photo
from dladiff.settings_in_use import unread_settings
from pipeline.errors import ConfigurationError
from pipeline.worker.protector import Protector

_FEW = {
    "loop.num_steps": 3,
    "loop.photo_step_every": 2,
    "loop.finishing_steps": 1,
    "surrogates.step0_steps": 1,
    "surrogates.num_epochs": 1,
}
"""Iterations that still reach every part: of three steps one looks at the photo itself."""


def protect_built_in_photo(protect: Protector, method: MethodSettings) -> None:
    """Runs every part of a method once on a photo that comes with the package.

    Raises:
        ConfigurationError: If it was not protected.
    """
    photo = Photo(key="preflight", image=_built_in_photo())
    result = protect([photo], [], _shortened(method), lambda *_: None).photos[0]
    if result.image is None:
        raise ConfigurationError(f"the built-in photo was not protected: {result.reason}")


def _built_in_photo() -> Image:
    from skimage.data import astronaut  # NASA, public domain

    photo: Image = astronaut()[0:256, 96:352]
    return photo


def _shortened(method: MethodSettings) -> MethodSettings:
    """The same method with as few iterations as exercise every part of it."""
    unread = unread_settings(method)
    return method.changed(*(f"{path}={few}" for path, few in _FEW.items() if path not in unread))
