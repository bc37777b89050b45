"""One photo's look through an autoencoder, in a worker: the judges' cosines to the person."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dladiff.evaluation.attackers_view import find_face
from dladiff.evaluation.handlings import handle_photos
from dladiff.evaluation.judges import embed_face
from dladiff.evaluation.remover import box_in_photo, mean_change_levels
from dladiff.evaluation.settings import REMOVAL
from dladiff.evaluation.through import Embedding, RoundTrip, load_round_trip, see_through
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from pipeline.evaluation.cells import LookCell
from pipeline.evaluation.people import PhotoFile
from pipeline.evaluation.workplace import Workplace, models_of, read_photo


def look_at(folder: Path, workplace: Workplace, cell: LookCell) -> dict[str, Any]:
    """What the judges see of one photo, by size and handling.

    Raises:
        ValueError: If the clean photo shows no face.
    """
    models = models_of(workplace)
    round_trip = _round_trip(folder, workplace.device)
    photo, clean = read_photo(cell.photo), read_photo(cell.clean)
    references = _references(workplace, cell.reference)
    remove = None if models.remover is None else models.remover.remove
    removed_levels = None
    looks = []
    for handling in cell.handlings:
        handled, original = (
            handle_photos(handling, [image], [clean], remover=remove)[0] for image in (photo, clean)
        )
        if handling == REMOVAL:
            removed_levels = _change_of_face(models.detector, clean, photo, handled)
        for side in cell.sizes:
            look = see_through(
                round_trip, models.detector, models.panel.judges, handled, original, side
            )
            looks.append(
                {
                    "short_side": side,
                    "handling": handling,
                    "face_found": look.found,
                    "published": _cosines(look.published, references),
                    "through": _cosines(look.through, references),
                }
            )
    return {"looks": looks, "removed_levels": removed_levels}


def _change_of_face(detector: FaceDetector, clean: Image, before: Image, after: Image) -> float:
    """How much a remover took away where the clean photo shows its largest face, in levels."""
    faces = detector.detect(clean)
    left, top, right, bottom = box_in_photo(faces[0] if faces else None, clean)
    return mean_change_levels(before[top:bottom, left:right], after[top:bottom, left:right])


@lru_cache(maxsize=1)
def _round_trip(folder: Path, device: str) -> RoundTrip:
    return load_round_trip(folder, device)


def _references(workplace: Workplace, photos: Sequence[PhotoFile]) -> dict[str, Embedding]:
    """Unit mean of a person's clean photos by judge; photos without a face are left out."""
    seen = [one for photo in photos if (one := _seen(workplace, photo)) is not None]
    if not seen:
        raise ValueError("no_reference: no clean photo of the person shows a face")
    means = {name: np.mean([one[name] for one in seen], axis=0) for name in seen[0]}
    return {name: mean / np.linalg.norm(mean) for name, mean in means.items()}


@lru_cache(maxsize=4096)
def _seen(workplace: Workplace, photo: PhotoFile) -> dict[str, Embedding] | None:
    models = models_of(workplace)
    image = read_photo(photo)
    face = find_face(models.detector, image)
    if face is None:
        return None
    return {judge.name: embed_face(judge, image, face) for judge in models.panel.judges}


def _cosines(
    seen: Mapping[str, Embedding], references: Mapping[str, Embedding]
) -> dict[str, float]:
    return {name: float(embedding @ references[name]) for name, embedding in seen.items()}
