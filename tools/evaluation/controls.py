"""Controls: changes of the same size that know nothing of the photo they are put on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dladiff.faces import estimate_similarity, pixel_rescaling, warp
from dladiff.image_values import Perturbation
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.person import Person
from dladiff.photo_at_work import PhotoAtWork
from dladiff.projected_gradient import project
from dladiff.randomness import keyed_generator
from dladiff.results import Face

SIGN_NOISE, BORROWED = "sign_noise", "borrowed"
METHODS = (SIGN_NOISE, BORROWED, *BASELINES)


@dataclass(frozen=True, eq=False)
class Donor:
    """Our change of a photo of somebody else."""

    perturbation: Perturbation
    """Protected less clean, at that photo's size."""
    faces: Sequence[Face]


def perturb(method: str, person: Person, donors: Sequence[Donor] = ()) -> None:
    """Changes the photos of a person in place, by one of ``METHODS``.

    Args:
        method: Its name.
        person: At the start.
        donors: Only of ``borrowed``: our changes of another person's photos.

    Raises:
        ValueError: If the effort did not suffice for a single step, or donors are missing.
        GradientError: If a photo's gradient was zero or not finite.
    """
    if method == SIGN_NOISE:
        sign_noise(person)
    elif method == BORROWED:
        borrow(person, donors)
    else:
        BASELINES[method](person).run()


def sign_noise(person: Person) -> None:
    """Random signs at the whole budget: what any change of this size does."""
    for instance in person.instances:
        ascent, key = instance.photo.ascent, instance.photo.key
        generator = keyed_generator(person.settings.seed, key, "sign noise")
        signs = torch.randint(0, 2, ascent.clean.shape, generator=generator) * 2 - 1
        ascent.perturbation = project(
            signs.to(ascent.clean) * ascent.epsilon, ascent.clean, ascent.epsilon
        )


def borrow(person: Person, donors: Sequence[Donor]) -> None:
    """Our change of another person's photo, its face moved onto this one's, within the budget.

    If that did as much, our method would not need to look at the person.
    """
    for number, instance in enumerate(person.instances):
        ascent, photo = instance.photo.ascent, instance.photo
        donor = donors[number % len(donors)]
        moved = warp(
            donor.perturbation.to(ascent.clean), _donor_from_photo(donor, photo), *photo.size
        )
        ascent.perturbation = project(moved, ascent.clean, ascent.epsilon)


def _donor_from_photo(donor: Donor, photo: PhotoAtWork) -> np.ndarray:
    """By the landmarks of the largest faces; the whole of one onto the other where one has none."""
    if donor.faces and photo.faces:
        return estimate_similarity(photo.faces[0].landmarks, donor.faces[0].landmarks)
    height, width = photo.size
    donor_height, donor_width = donor.perturbation.shape[-2:]
    return pixel_rescaling(donor_width / width, donor_height / height)
