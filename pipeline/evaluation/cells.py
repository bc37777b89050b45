"""The units of an evaluation's work, each named by the content it depends on.

An attack is keyed by photos, settings and checkpoint; a measurement by the attack's images, the
reference and the judges; a change by two photos. So nothing is computed twice, whatever changes
around it: other judges look at the same images again, a new protected tree leaves the clean attacks
as they are.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dladiff.config import EncoderSettings, ModelSettings
from dladiff.evaluation.settings import AttackSettings, HandlingName, ViewName
from dladiff.weight_files import checkpoint_folder, encoder_files, files_below
from pipeline.errors import ConfigurationError
from pipeline.evaluation.people import PhotoFile
from pipeline.models.hashing import file_sha256

EVALUATION_VERSION = 1
"""Raised whenever the same inputs and settings would give other images."""
MEASURE_VERSION = 2
"""Raised whenever the same images would give other numbers."""

LOOK_VERSION = 1
"""Raised whenever a look at the same photos would give other numbers."""


@dataclass(frozen=True)
class AttackCell:
    """One attack on a few photos, up to its generated images."""

    key: str
    attack: AttackSettings
    handling: HandlingName
    view: ViewName
    photos: tuple[PhotoFile, ...]
    clean: tuple[PhotoFile, ...]
    """Their originals: landmarks where a change hides the face, and what ``clean_mix`` mixes in."""

    kind: Literal["attack"] = "attack"


@dataclass(frozen=True)
class MeasureCell:
    """What the judges say of an attack's images against one person's reference."""

    key: str
    attack: AttackCell
    reference: tuple[PhotoFile, ...]

    kind: Literal["measure"] = "measure"


@dataclass(frozen=True)
class ChangeCell:
    """How visible the change of one photo is."""

    key: str
    clean: PhotoFile
    protected: PhotoFile

    kind: Literal["change"] = "change"


@dataclass(frozen=True)
class LookCell:
    """What the judges see of one photo through an autoencoder."""

    key: str
    number: int
    """Number of the photo among those of its person."""
    photo: PhotoFile
    clean: PhotoFile
    reference: tuple[PhotoFile, ...]
    handlings: tuple[HandlingName, ...]
    sizes: tuple[int | None, ...]
    """Short sides in pixels; None: as the photo comes."""

    kind: Literal["look"] = "look"


CellOfAttacks = AttackCell | MeasureCell | ChangeCell
Cell = CellOfAttacks | LookCell


def content_key(*parts: Any) -> str:
    """sha256 hex of JSON values, dataclasses and settings, in this order."""

    def plain(value: Any) -> Any:
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json")
        if isinstance(value, PhotoFile):
            return value.sha256  # a photo is its content, wherever it lies
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"no key of a {type(value).__name__}")

    text = json.dumps([EVALUATION_VERSION, *parts], default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def attack_cell(
    attack: AttackSettings,
    handling: HandlingName,
    view: ViewName,
    photos: tuple[PhotoFile, ...],
    clean: tuple[PhotoFile, ...],
    checkpoint_digest: str,
) -> AttackCell:
    """The cell of an attack; one on no photos (``untouched``) is everybody's floor."""
    key = content_key("attack", attack, handling, view, photos, clean, checkpoint_digest)
    return AttackCell(key, attack, handling, view, photos, clean)


def measure_cell(
    attack: AttackCell, reference: tuple[PhotoFile, ...], judges_digest: str
) -> MeasureCell:
    """The cell of a look at an attack's images."""
    key = content_key("measure", MEASURE_VERSION, attack.key, reference, judges_digest)
    return MeasureCell(key, attack, reference)


def change_cell(clean: PhotoFile, protected: PhotoFile) -> ChangeCell:
    """The cell of one photo's change."""
    return ChangeCell(content_key("change", clean, protected), clean, protected)


def look_cell(
    number: int,
    photo: PhotoFile,
    clean: PhotoFile,
    reference: tuple[PhotoFile, ...],
    handlings: tuple[HandlingName, ...],
    sizes: tuple[int | None, ...],
    digests: tuple[str, ...],
) -> LookCell:
    """The cell of one photo's look; ``digests`` are of the models that it needs."""
    parts = (photo, clean, reference, handlings, sizes, digests)
    key = content_key("look", LOOK_VERSION, *parts)
    return LookCell(key, number, photo, clean, reference, handlings, sizes)


def checkpoint_digest(checkpoint: ModelSettings) -> str:
    """Hex digest of a checkpoint's files; a hub checkpoint is named by its commit.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    folder = checkpoint_folder(checkpoint)
    if folder is None:
        return content_key("hub", checkpoint.checkpoint, checkpoint.revision)
    return folder_digest(folder)


def folder_digest(folder: Path) -> str:
    """Hex digest of the weights and settings in a model's folder.

    Raises:
        ConfigurationError: If it holds none.
    """
    files = files_below(folder)
    if not files:
        raise ConfigurationError(f"there is no model in {folder}")
    return content_key({name: file_sha256(path) for name, path in files.items()})


def file_digest(path: Path) -> str:
    """sha256 hex of a file that a person named.

    Raises:
        ConfigurationError: If there is none.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    return file_sha256(path)


def encoders_digest(encoders: tuple[EncoderSettings, ...]) -> str:
    """Hex digest of encoders' names and files, in their order.

    Raises:
        ModelError: If a file is missing.
    """
    return content_key(
        [
            [
                encoder.name,
                {name: file_sha256(path) for name, path in encoder_files(encoder).items()},
            ]
            for encoder in encoders
        ]
    )
