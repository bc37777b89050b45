"""What is measured: judges look at generated images, and at what a protection changed."""

from functools import lru_cache
from typing import Any

import numpy as np

from dladiff.evaluation.attackers_view import Crop, find_face
from dladiff.evaluation.handlings import smoothed
from dladiff.evaluation.image_quality import KernelDistance
from dladiff.evaluation.judges import Seen
from dladiff.evaluation.settings import ViewName
from dladiff.quality import (
    LearnedPerceptualDistance,
    load_learned_perceptual_distance,
    psnr_db,
    ssim,
)
from dladiff.visible_difference import worst_face_jod
from pipeline.evaluation.cells import ChangeCell, MeasureCell
from pipeline.evaluation.people import PhotoFile
from pipeline.evaluation.records import Shelf, read_images, read_record
from pipeline.evaluation.workplace import Workplace, models_of, read_photo


def measure(out: Shelf, workplace: Workplace, cell: MeasureCell) -> dict[str, Any]:
    """Cosines of an attack's images to the person's reference, as made and smoothed; their KID.

    Raises:
        ValueError: If the attack is not done, or the reference shows no face.
    """
    panel = models_of(workplace).panel
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
    seen = models_of(workplace).panel.look([read_photo(photo) for photo in photos])
    return {name: one.reference for name, one in seen.items()}


@lru_cache(maxsize=64)
def _reference_crops(
    workplace: Workplace, photos: tuple[PhotoFile, ...], view: ViewName
) -> list[Crop]:
    """The reference as a model sees it that learns from it; photos without a face are left out."""
    models = models_of(workplace)
    read = [read_photo(photo) for photo in photos]
    seen = [(photo, find_face(models.detector, photo)) for photo in read]
    kept = [(photo, face) for photo, face in seen if face is not None or view == "whole"]
    return models.cropped([photo for photo, _ in kept], [face for _, face in kept], view)


@lru_cache(maxsize=1)
def _kernel_distance(device: str) -> KernelDistance | None:
    network = _lpips(device)
    return None if network is None else KernelDistance(network)


def measure_change(workplace: Workplace, cell: ChangeCell) -> dict[str, Any]:
    """PSNR, SSIM and LPIPS of one photo's change, and the JOD that its faces keep.

    Raises:
        ValueError: If the two differ in size.
    """
    clean, protected = read_photo(cell.clean), read_photo(cell.protected)
    if clean.shape != protected.shape:
        raise ValueError(f"size: the clean photo is {clean.shape}, the protected {protected.shape}")
    change = np.abs(protected.astype(np.int16) - clean.astype(np.int16))
    lpips = _lpips(workplace.device)
    psnr = psnr_db(clean, protected)
    return {
        "psnr_db": psnr if np.isfinite(psnr) else None,
        "ssim": ssim(clean, protected),
        "lpips": None if lpips is None else lpips.between(clean, protected),
        "face_visibility_jod": worst_face_jod(
            clean, protected, models_of(workplace).detector.detect(clean), workplace.device
        ),
        "max_change_levels": int(change.max()),
    }


@lru_cache(maxsize=1)
def _lpips(device: str) -> LearnedPerceptualDistance | None:
    return load_learned_perceptual_distance(device)
