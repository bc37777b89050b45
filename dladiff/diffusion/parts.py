"""Parts of a checkpoint's folder, one by one: networks, tokenizer, schedule, small JSON files.

Only safetensors weights are read and no code of a checkpoint runs. Knows no object that they
become; ``checkpoint`` puts them together.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler
from safetensors import SafetensorError
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dladiff.errors import ModelError
from dladiff.weight_files import AUTOENCODER_CLASSES, autoencoder_part, unsupported_autoencoder


def load_vae(source: str, revision: str | None) -> Any:
    """The autoencoder, of the class that its configuration says.

    Args:
        source: Folder in diffusers format, or a hub id: a checkpoint's, whose autoencoder lies in
            ``vae``, or an autoencoder's own.
        revision: Commit of a hub id.

    Raises:
        ModelError: If its class is not supported, before its weights are read; else as
            ``load_part``.
    """
    source, subfolder, config = _autoencoder_config(source, revision)
    return load_part(_autoencoder_class(source, config), source, subfolder, revision)


def configured_vae(source: str, revision: str | None) -> Any:
    """The same with the weights that its class begins with, on whatever device is current."""
    source, _, config = _autoencoder_config(source, revision)
    return _autoencoder_class(source, config).from_config(config)


def _autoencoder_class(source: str, config: dict[str, Any]) -> Any:
    name = config.get("_class_name")
    if name not in AUTOENCODER_CLASSES:
        raise ModelError(f"{source}: {unsupported_autoencoder(name)}")
    return getattr(diffusers, name)


def _autoencoder_config(source: str, revision: str | None) -> tuple[str, str, dict[str, Any]]:
    """Where the autoencoder is, in which subfolder, and its configuration."""
    folder, errors = Path(source), list[Exception]()
    subfolders: tuple[str, ...] = ("vae", "")
    if folder.is_dir():
        # Diffusers would rather read a config.json of the folder itself.
        source, subfolders = str(autoencoder_part(folder)), ("",)
    for subfolder in subfolders:
        try:
            options = {"subfolder": subfolder or None, "revision": revision}
            config: dict[str, Any] = diffusers.AutoencoderKL.load_config(source, **options)
            return source, subfolder, config
        except (OSError, ValueError) as error:
            errors.append(error)
    raise ModelError(f"{source}: its vae has no readable configuration: {errors[0]}")


def load_part(part: Any, source: str, subfolder: str, revision: str | None) -> Any:
    """One part, networks in float32.

    Args:
        part: Class of diffusers or transformers.
        source: Folder in diffusers format, or a hub id.
        subfolder: The part's own; empty: none.
        revision: Commit of a hub id.

    Raises:
        ModelError: If it is absent, damaged or of another kind.
    """
    is_model = part not in (CLIPTokenizer, DDPMScheduler)
    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32} if is_model else {}
    what = f"{source}: its {subfolder or 'vae'} cannot be loaded as {part.__name__}"
    with refusing(what), _without_progress_bars():
        options |= {"subfolder": subfolder or None, "revision": revision}
        return part.from_pretrained(source, **options)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns whatever the libraries raise at files that are no such model into a ``ModelError``.

    Args:
        what: Of which model it is said, and as what it cannot be loaded.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{what} (safetensors only): {error}") from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Who shows progress is the caller's business; the library's own setting comes back."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """An object from a small file beside the parts; empty where there is no such file.

    Raises:
        ModelError: If it holds something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected an object, got {type(content).__name__}")
    return content
