"""One cell of an evaluation, done in whatever process it lands in; models load once per process.

Knows models, photos and OUT. Knows no Ray and no plan.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dladiff.config import EncoderSettings, FaceDetectorSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.errors import DladiffError
from dladiff.evaluation.attackers_view import Crop, attackers_crop, find_face
from dladiff.evaluation.attacks.attack import (
    fine_tuning_attack,
    untouched_images,
    zero_shot_attack,
)
from dladiff.evaluation.attacks.zero_shot import FaceAdapter, ToldFaces, read_faces
from dladiff.evaluation.handlings import handle_photos, smoothed
from dladiff.evaluation.image_quality import KernelDistance
from dladiff.evaluation.judges import MIN_FACE_SCORE, Panel, Seen
from dladiff.evaluation.purification import purify
from dladiff.evaluation.settings import ViewName
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.image_values import Image, Images, image_to_tensor, tensor_to_image
from dladiff.quality import load_learned_perceptual_distance, psnr_db, ssim
from dladiff.results import Face
from pipeline.evaluation.cells import AttackCell, Cell, ChangeCell, MeasureCell
from pipeline.evaluation.people import PhotoFile
from pipeline.evaluation.records import (
    MemoryShelf,
    Shelf,
    read_images,
    read_record,
    write_images,
    write_record,
)
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.storage.store import open_store, read_uri

logger = logging.getLogger("dladiff.evaluation")


@dataclass(frozen=True)
class Workplace:
    """What a worker is told besides its cell; small, and equal for all of them."""

    out_uri: str
    settings_json: str
    device: str
    threads: int
    weights_cache: str

    @property
    def settings(self) -> EvaluationSettings:
        return EvaluationSettings.model_validate_json(self.settings_json)


@dataclass(frozen=True)
class CellOutcome:
    """What the driver learns of a cell."""

    seconds: float
    reason: str | None = None
    """Why it could not be done; None: it is done."""


def do_cell(workplace: Workplace, cell: Cell) -> CellOutcome:
    """Does a cell unless it is done; a cell that cannot be done says why and harms no other."""
    return _do_on(open_store(workplace.out_uri), workplace, cell)


def do_in_memory(workplace: Workplace, cells: Sequence[Cell]) -> dict[str, dict[str, Any] | str]:
    """Does cells one after the other and leaves nothing: images are dropped, numbers come back.

    Args:
        workplace: ``out_uri`` is not used.
        cells: Each after those that it needs.

    Returns:
        By cell key its record, or why it could not be done.
    """
    shelf = MemoryShelf()
    found: dict[str, dict[str, Any] | str] = {}
    for cell in cells:
        outcome = _do_on(shelf, workplace, cell)
        found[cell.key] = read_record(shelf, cell) or outcome.reason or "not_done: no record"
    return found


def _do_on(out: Shelf, workplace: Workplace, cell: Cell) -> CellOutcome:
    started = time.monotonic()
    torch.set_num_threads(workplace.threads)
    try:
        if read_record(out, cell) is None:
            if isinstance(cell, AttackCell):
                record = _attack(out, workplace, cell)
            elif isinstance(cell, MeasureCell):
                record = _measure(out, workplace, cell)
            else:
                record = _change(workplace, cell)
            write_record(out, cell, record)
    except (DladiffError, ValueError) as error:
        return CellOutcome(time.monotonic() - started, str(error))
    return CellOutcome(time.monotonic() - started)


class _Models:
    """Loaded at first use, and kept: a worker's cells share one evaluation."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.settings = workplace.settings
        self.detector: FaceDetector = load_face_detector(
            FaceDetectorSettings(min_score=MIN_FACE_SCORE)
        )
        self._diffusion: DiffusionModel | None = None
        self._panel: Panel | None = None
        self._adapter: FaceAdapter | None = None

    @property
    def diffusion(self) -> DiffusionModel:
        if self._diffusion is None:
            self._diffusion = load_diffusion_model(
                self.settings.surrogate,
                self.workplace.device,
                "bfloat16" if self.workplace.device.startswith("cuda") else "float32",
            )
        return self._diffusion

    @property
    def panel(self) -> Panel:
        if self._panel is None:
            judges = [self._encoder(judge) for judge in self.settings.judges]
            self._panel = Panel(self.detector, judges)
        return self._panel

    @property
    def adapter(self) -> FaceAdapter:
        if self._adapter is None:
            clip = self.settings.adapter_clip_encoder
            self._adapter = FaceAdapter(
                self.settings.adapter_path,
                self._encoder(self.settings.adapter_encoder),
                None if clip is None else self._encoder(clip),
                has_shortcut=self.settings.adapter_kind == "faceid-plusv2",
            )
        return self._adapter

    def cropped(
        self, photos: Sequence[Image], faces: Sequence[Face | None], view: ViewName
    ) -> list[Crop]:
        """Photos as the checkpoint's square input."""
        diffusion = self.diffusion
        template = None if diffusion.face_template is None else diffusion.face_template.numpy()
        return [
            attackers_crop(photo, face, view, diffusion.resolution, template)
            for photo, face in zip(photos, faces, strict=True)
        ]

    def _encoder(self, settings: EncoderSettings) -> IdentityEncoder:
        return load_identity_encoder(
            settings, self.workplace.device, Path(self.workplace.weights_cache)
        )


@lru_cache(maxsize=1)
def _models(workplace: Workplace) -> _Models:
    return _Models(workplace)


def _attack(out: Shelf, workplace: Workplace, cell: AttackCell) -> dict[str, Any]:
    """Handles, crops, customises, generates; keeps the images."""
    models = _models(workplace)
    diffusion = models.diffusion
    cpu_started = time.process_time()
    started = time.monotonic()
    stops: list[tuple[int, Images]]
    num_photos = 0
    if cell.attack.name == "untouched":
        stops = [(0, untouched_images(diffusion, cell.attack))]
    else:
        photos, faces = _faces_of_photos(models.detector, cell)
        num_photos = len(photos)
        crops = _crops(models, cell, photos, faces)
        if cell.attack.name == "zero_shot":
            told = _told(models, cell, photos, faces, crops)
            stops = [(0, zero_shot_attack(diffusion, models.adapter, told, cell.attack))]
        else:
            stops = list(fine_tuning_attack(diffusion, crops, cell.attack))
    images = [[tensor_to_image(image[None]) for image in made] for _, made in stops]
    write_images(out, cell, images)
    return {
        "stops": [num_steps for num_steps, _ in stops],
        "num_images": cell.attack.num_images,
        "num_photos": num_photos,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "settings": cell.attack.model_dump(mode="json"),
        "handling": cell.handling,
        "view": cell.view,
    }


def _faces_of_photos(
    detector: FaceDetector, cell: AttackCell
) -> tuple[list[Image], list[Face | None]]:
    """Handled photos and their faces; photos on which no face can be marked are left out.

    Raises:
        ValueError: If none is left.
    """
    published = [_read(photo) for photo in cell.photos]
    clean = [_read(photo) for photo in cell.clean]
    handled = handle_photos(cell.handling, published, clean, cell.attack.seed)
    faces = [find_face(detector, *pair) for pair in zip(handled, clean, strict=True)]
    if cell.view == "whole" and cell.attack.name != "zero_shot":
        return handled, faces
    kept = [index for index, face in enumerate(faces) if face is not None]
    if not kept:
        raise ValueError("no_face: no face was found in any photo of a person, clean ones included")
    return [handled[index] for index in kept], [faces[index] for index in kept]


def _crops(
    models: _Models, cell: AttackCell, photos: Sequence[Image], faces: Sequence[Face | None]
) -> Images:
    """What the attacker trains on: square crops, purified if the handling says so."""
    diffusion = models.diffusion
    crops = models.cropped(photos, faces, cell.view)
    tensors = torch.cat([image_to_tensor(crop, diffusion.device) for crop in crops])
    return purify(cell.handling, diffusion, tensors, cell.attack.seed)


def _told(
    models: _Models,
    cell: AttackCell,
    photos: Sequence[Image],
    faces: Sequence[Face | None],
    crops: Images,
) -> ToldFaces:
    """What the adapter's encoders read in each photo; of a purified one in its crop."""
    read = []
    for photo, face, crop in zip(photos, faces, crops, strict=True):
        seen: Image = photo
        if cell.handling in ("sdedit", "gridpure"):
            seen = tensor_to_image(crop[None])
            face = find_face(models.detector, seen)
            if face is None:
                continue
        assert face is not None
        read.append((seen, face))
    if not read:
        raise ValueError("no_face: purification left no face for the adapter to read")
    return read_faces(models.adapter, read, models.diffusion.device)


def _measure(out: Shelf, workplace: Workplace, cell: MeasureCell) -> dict[str, Any]:
    """Cosines of an attack's images to the person's reference, as made and smoothed; their KID.

    Raises:
        ValueError: If the attack is not done, or the reference shows no face.
    """
    panel = _models(workplace).panel
    attack = read_record(out, cell.attack)
    if attack is None:
        raise ValueError("no_images: the attack itself could not be done")
    references = _references(workplace, cell.reference)
    photos = _reference_crops(workplace, cell.reference, cell.attack.view)
    kernel_distance = _kernel_distance(workplace.device)
    stops = []
    for num_steps, images in zip(
        attack["stops"], read_images(out, cell.attack, len(attack["stops"])), strict=True
    ):
        plain = panel.look(images)
        smooth = panel.look([smoothed(image, index) for index, image in enumerate(images)])
        stops.append(
            {
                "num_steps": num_steps,
                "as_made": _look(plain, references),
                "smoothed": _look(smooth, references),
                "kid": None if kernel_distance is None else kernel_distance.between(images, photos),
            }
        )
    return {"stops": stops}


def _look(seen: dict[str, Seen], references: dict[str, Any]) -> dict[str, Any]:
    found = next(iter(seen.values())).found
    return {
        "found": found.tolist(),
        "cosines": {
            name: [float(value) for value in one.cosines(references[name])]
            for name, one in seen.items()
        },
    }


@lru_cache(maxsize=64)
def _references(workplace: Workplace, photos: tuple[PhotoFile, ...]) -> dict[str, Any]:
    """A person's reference by judge; in memory only."""
    seen = _models(workplace).panel.look([_read(photo) for photo in photos])
    return {name: one.reference for name, one in seen.items()}


@lru_cache(maxsize=64)
def _reference_crops(
    workplace: Workplace, photos: tuple[PhotoFile, ...], view: ViewName
) -> list[Crop]:
    """The reference as a model sees it that learns from it; photos without a face are left out."""
    models = _models(workplace)
    read = [_read(photo) for photo in photos]
    seen = [(photo, find_face(models.detector, photo)) for photo in read]
    kept = [(photo, face) for photo, face in seen if face is not None or view == "whole"]
    return models.cropped([photo for photo, _ in kept], [face for _, face in kept], view)


@lru_cache(maxsize=1)
def _kernel_distance(device: str) -> KernelDistance | None:
    network = _lpips(device)
    return None if network is None else KernelDistance(network)


def _change(workplace: Workplace, cell: ChangeCell) -> dict[str, Any]:
    """PSNR, SSIM and LPIPS of one photo's change.

    Raises:
        ValueError: If the two differ in size.
    """
    clean, protected = _read(cell.clean), _read(cell.protected)
    if clean.shape != protected.shape:
        raise ValueError(f"size: the clean photo is {clean.shape}, the protected {protected.shape}")
    change = np.abs(protected.astype(np.int16) - clean.astype(np.int16))
    lpips = _lpips(workplace.device)
    psnr = psnr_db(clean, protected)
    return {
        "psnr_db": psnr if np.isfinite(psnr) else None,
        "ssim": ssim(clean, protected),
        "lpips": None if lpips is None else lpips.between(clean, protected),
        "max_change_levels": int(change.max()),
    }


@lru_cache(maxsize=1)
def _lpips(device: str) -> Any:
    return load_learned_perceptual_distance(device)


def _read(photo: PhotoFile) -> Image:
    return decode_photo(read_uri(photo.uri), PhotoLimits()).image
