"""A control: our own recipe, but whose likeness it takes away is a face that nobody has.

That face is sampled from the checkpoint. If such a tree protected as ours does, what counts would
be the damage, not whom it is aimed at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dladiff.config import MethodSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.attack import untouched_images
from dladiff.evaluation.settings import attack_settings
from dladiff.identities import FaceIdentity, clean_identities
from dladiff.image_values import Image, levels_to_unit, tensor_to_image
from dladiff.methods.others.person import BaselineSettings
from dladiff.methods.paper.two_layers import protect_in_two_layers
from dladiff.models import ProtectionModels
from dladiff.photo_at_work import PhotoAtWork
from dladiff.protect import take_likeness_away
from dladiff.results import Cost, Photo

SAMPLED_FACE = "sampled_face"
_TRIES = 8


@dataclass(frozen=True)
class Aimed:
    """One person's photos, and what was spent on them."""

    images: list[Image]
    cost: Cost


def sampled_face_method(settings: BaselineSettings, num_steps: int | None) -> MethodSettings:
    """Our method within the baselines' budgets.

    Args:
        settings: Budgets, seed and the preset.
        num_steps: Of the likeness loop; None: as many as the preset takes.
    """
    method = settings.method
    # Only the sum counts inside faces; outside, the smaller of eta_ft and the surroundings'.
    of_model = min(method.budget.fine_tuning_levels, settings.face_levels)
    return method.changed(
        f"budget.fine_tuning_levels={of_model}",
        f"budget.zero_shot_levels={settings.face_levels - of_model}",
        f"budget.surroundings_levels={settings.surroundings_levels}",
        f"loop.num_steps={num_steps or method.loop.num_steps}",
        f"seed={settings.seed}",
    )


def take_stranger_away(
    photos: Sequence[Photo],
    models: ProtectionModels,
    diffusion: DiffusionModel,
    method: MethodSettings,
    stranger_seed: int,
) -> Aimed:
    """Changes one person's photos as our method does, but away from a sampled face.

    Args:
        photos: Of the person.
        models: Of ``method``.
        diffusion: The checkpoint that samples the face.
        method: See ``sampled_face_method``.
        stranger_seed: Which face.

    Raises:
        ValueError: If the checkpoint shows no face.
    """
    cost = Cost()
    at_work = [PhotoAtWork.seen_by(models.detector, photo, models.device) for photo in photos]
    with_faces = [photo for photo in at_work if photo.found]
    if with_faces:
        stranger = sampled_identity(models, diffusion, stranger_seed)
        own = clean_identities(
            [photo.photo for photo in with_faces],
            [photo.found for photo in with_faces],
            models.likeness_encoders,
            models.device,
        )
        for photo, faces in zip(with_faces, own, strict=True):
            # Which face is the person's is still known, so that the loop looks where ours does.
            photo.identities = [replace(stranger, is_person=face.is_person) for face in faces]
        take_likeness_away(with_faces, models, method, cost, lambda stage, fraction: None)
    faceless = [photo for photo in at_work if not photo.found]
    protect_in_two_layers(faceless, [], models, method, cost, lambda stage, fraction: None)
    epsilon = levels_to_unit(method.budget.zero_shot_levels)
    images = [tensor_to_image(one.with_added(one.perturbed(), epsilon)) for one in at_work]
    return Aimed(images, cost)


def sampled_identity(
    models: ProtectionModels, diffusion: DiffusionModel, seed: int
) -> FaceIdentity:
    """What the encoders of the losses see in the first sample that shows a face.

    Raises:
        ValueError: If none of a few samples does.
    """
    attack = attack_settings("untouched", diffusion.face_template is not None)
    for number in range(_TRIES):
        one = attack.model_copy(update={"num_images": 1, "seed": _TRIES * seed + number})
        photo = Photo(f"sample {number}", tensor_to_image(untouched_images(diffusion, one)))
        faces = models.detector.detect(photo.image)
        if faces:
            encoders = models.likeness_encoders
            return clean_identities([photo], [faces[:1]], encoders, models.device)[0][0]
    raise ValueError(f"the checkpoint shows no face in {_TRIES} samples: give another --seed")
