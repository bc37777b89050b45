"""One loop that spends both layers' budgets in faces: what models learn and what adapters read.

Steps on what the autoencoder shows (L_id, layer 1) and steps on the photo itself (layer 2) move
one perturbation within one budget, so that neither undoes the other [X]. Knows both losses as
gradients; computes none itself.
"""

from collections.abc import Callable, Sequence

from dladiff.config import LikenessSettings
from dladiff.identities import KnownPhoto
from dladiff.image_values import levels_to_unit
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.layer2.photo_likeness import PhotoLikeness


def defend_likeness(
    photos: Sequence[KnownPhoto],
    through_model: AutoencoderLikeness,
    on_photo: PhotoLikeness | None,
    settings: LikenessSettings,
    on_progress: Callable[[float], None],
) -> None:
    """Takes all steps on all photos of a person, in place.

    Args:
        photos: With faces, each at the start of its ascent.
        through_model: L_id.
        on_photo: Layer 2's loss; None where layer 2 is off: then every step is L_id's.
        settings: Number, size and order of steps.
        on_progress: Called after each step with the fraction done.

    Raises:
        GradientError: If the gradient of a photo was zero or not finite.
    """
    for step in range(settings.num_steps):
        step_size = levels_to_unit(step_size_levels(settings, step))
        is_photo_step = step % settings.photo_step_every == settings.photo_step_every - 1
        if on_photo is not None and is_photo_step:
            # A face that is unlike enough has no gradient: its momentum goes on alone.
            for photo, gradient in zip(photos, on_photo.gradients(photos, step), strict=True):
                ascent = photo.instance.ascent
                ascent.step(gradient, step_size, settings.momentum, may_vanish=True)
        else:
            for photo, gradient in zip(photos, through_model.gradients(photos, step), strict=True):
                photo.instance.ascent.step(gradient, step_size, settings.momentum)
        on_progress((step + 1) / settings.num_steps)
    for photo in photos:
        photo.instance.ascent.require_live(f"likeness, photo {photo.instance.photo.key}")


def step_size_levels(settings: LikenessSettings, step: int) -> float:
    """Falls linearly from twice the mean step to a tenth of it."""
    left = 1 - step / settings.num_steps
    return settings.step_size_levels * max(0.1, 2 * left)
