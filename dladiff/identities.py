"""Whom the faces of a set show: what encoders see in each clean face, and which is the person.

Knows clean photos, faces and encoders. Embeddings of a person live here for as long as the work
on the person's photos, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from dladiff.encoders.identity_encoders import IdentityEncoder, UnitEmbeddings
from dladiff.faces import crop_from_photo, warp
from dladiff.image_values import Image, image_to_tensor
from dladiff.results import Face, Photo


@dataclass(frozen=True, eq=False)
class FaceIdentity:
    """One clean face by encoder name; unit vectors of shape (1, dim)."""

    own: dict[str, UnitEmbeddings]
    """Unit embeddings of this very face, by encoder."""
    target: dict[str, UnitEmbeddings]
    """Whom a model must not show: the person's mean, e_i of L_id; of a bystander, ``own``."""
    is_person: bool
    """False: somebody else in the person's photo."""


@torch.no_grad()
def clean_identities(
    photos: Sequence[Photo],
    faces: Sequence[Sequence[Face]],
    encoders: Sequence[IdentityEncoder],
    device: torch.device | str,
) -> list[list[FaceIdentity]]:
    """Embeds every clean face and tells the person from bystanders.

    The person is the face of each photo that is most like the largest faces of all photos taken
    together: the photos are of one person, so the majority is.

    Args:
        photos: Clean photos.
        faces: Of each, largest first.
        encoders: Whose eyes count; white boxes of the losses.
        device: Where the encoders live.

    Returns:
        One identity per face, photo by photo.
    """
    own = [
        [_embed(photo.image, face, encoders, device) for face in found]
        for photo, found in zip(photos, faces, strict=True)
    ]
    anchor = _mean([found[0] for found in own if found])
    chosen = [_most_like(anchor, found) for found in own]
    person = _mean([found[index] for found, index in zip(own, chosen, strict=True) if found])
    return [
        [
            FaceIdentity(embeds, person if number == index else embeds, number == index)
            for number, embeds in enumerate(found)
        ]
        for found, index in zip(own, chosen, strict=True)
    ]


def _embed(
    image: Image, face: Face, encoders: Sequence[IdentityEncoder], device: torch.device | str
) -> dict[str, UnitEmbeddings]:
    images = image_to_tensor(image, device)
    return {
        encoder.name: encoder.embed(
            warp(images, np.linalg.inv(crop_from_photo(face, encoder.template)), encoder.side)
        )
        for encoder in encoders
    }


def _mean(faces: Sequence[dict[str, UnitEmbeddings]]) -> dict[str, UnitEmbeddings]:
    """Unit means by encoder; empty where there is no face."""
    return {
        name: functional.normalize(torch.cat([face[name] for face in faces]).mean(0, True), dim=1)
        for name in (faces[0] if faces else {})
    }


def _most_like(anchor: dict[str, UnitEmbeddings], faces: list[dict[str, UnitEmbeddings]]) -> int:
    """Index of the face with the highest cosines to the anchor, summed over encoders."""
    likeness = [sum(float((face[name] * anchor[name]).sum()) for name in anchor) for face in faces]
    return int(np.argmax(likeness)) if likeness else 0
