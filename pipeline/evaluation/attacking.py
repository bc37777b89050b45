"""An attack's cell: photos are handled, cropped, learnt, and images are generated."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from dladiff.errors import ModelError
from dladiff.evaluation.attackers_view import find_face
from dladiff.evaluation.attacks.attack import (
    fine_tuning_attack,
    untouched_images,
    zero_shot_attack,
)
from dladiff.evaluation.attacks.zero_shot import ToldFaces, read_faces
from dladiff.evaluation.handlings import handle_photos
from dladiff.evaluation.purification import purify
from dladiff.evaluation.settings import PURIFICATIONS, XL_LIMITS, works_on_xl
from dladiff.image_values import Image, Images, image_to_tensor, tensor_to_image
from dladiff.results import Face
from pipeline.evaluation.cells import AttackCell
from pipeline.evaluation.records import Shelf, write_images
from pipeline.evaluation.workplace import Models, Workplace, models_of, read_photo


def attack(out: Shelf, workplace: Workplace, cell: AttackCell) -> dict[str, Any]:
    """Handles, crops, customises, generates; keeps the images."""
    models = models_of(workplace)
    diffusion = models.diffusion
    if diffusion.second_text is not None and not works_on_xl(cell.attack.name, cell.handling):
        raise ModelError(XL_LIMITS)
    cpu_started = time.process_time()
    started = time.monotonic()
    stops: list[tuple[int, Images]]
    num_photos = 0
    if cell.attack.name == "untouched":
        stops = [(0, untouched_images(diffusion, cell.attack))]
    else:
        photos, faces = _faces_of_photos(models, cell)
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


def _faces_of_photos(models: Models, cell: AttackCell) -> tuple[list[Image], list[Face | None]]:
    """Handled photos and their faces; photos on which no face can be marked are left out.

    Raises:
        ValueError: If none is left.
    """
    published = [read_photo(photo) for photo in cell.photos]
    clean = [read_photo(photo) for photo in cell.clean]
    remover = models.remover
    remove = None if remover is None else remover.remove
    handled = handle_photos(cell.handling, published, clean, cell.attack.seed, remove)
    faces = [find_face(models.detector, *pair) for pair in zip(handled, clean, strict=True)]
    if cell.view == "whole" and cell.attack.name != "zero_shot":
        return handled, faces
    kept = [index for index, face in enumerate(faces) if face is not None]
    if not kept:
        raise ValueError("no_face: no face was found in any photo of a person, clean ones included")
    return [handled[index] for index in kept], [faces[index] for index in kept]


def _crops(
    models: Models, cell: AttackCell, photos: Sequence[Image], faces: Sequence[Face | None]
) -> Images:
    """What the attacker trains on: square crops, purified if the handling says so."""
    diffusion = models.diffusion
    crops = models.cropped(photos, faces, cell.view)
    tensors = torch.cat([image_to_tensor(crop, diffusion.device) for crop in crops])
    return purify(cell.handling, diffusion, tensors, cell.attack.seed)


def _told(
    models: Models,
    cell: AttackCell,
    photos: Sequence[Image],
    faces: Sequence[Face | None],
    crops: Images,
) -> ToldFaces:
    """What the adapter's encoders read in each photo; in its crop where that is what is shown."""
    sees_crops = cell.handling in PURIFICATIONS or models.adapter.identity_net is not None
    read = []
    for photo, face, crop in zip(photos, faces, crops, strict=True):
        seen: Image = photo
        if sees_crops:
            seen = tensor_to_image(crop[None])
            face = find_face(models.detector, seen)
            if face is None:
                continue
        assert face is not None
        read.append((seen, face))
    if not read:
        raise ValueError("no_face: no square crop shows the adapter a face; see --view")
    return read_faces(models.adapter, read, models.diffusion.device)
