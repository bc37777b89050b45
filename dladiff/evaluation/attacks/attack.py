"""One attack from crops to generated images, whatever its kind."""

from collections.abc import Callable, Iterator

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, copy_of, fine_tune
from dladiff.evaluation.attacks.dreambooth import begin_dreambooth
from dladiff.evaluation.attacks.lora import begin_lora
from dladiff.evaluation.attacks.sampling import generate
from dladiff.evaluation.attacks.textual_inversion import begin_textual_inversion
from dladiff.evaluation.attacks.zero_shot import (
    FaceAdapter,
    ToldFaces,
    begin_zero_shot,
    require_width,
)
from dladiff.evaluation.settings import AttackName, AttackSettings
from dladiff.image_values import Images

FINE_TUNING: dict[AttackName, Callable[[DiffusionModel, AttackSettings], Customised]] = {
    "dreambooth": begin_dreambooth,
    "lora": begin_lora,
    "textual_inversion": begin_textual_inversion,
}
"""What each attack learns; the loop is the same."""


def fine_tuning_attack(
    diffusion: DiffusionModel, crops: Images, settings: AttackSettings
) -> Iterator[tuple[int, Images]]:
    """Customises by fine-tuning and generates at each stop.

    Args:
        diffusion: The checkpoint; not changed.
        crops: The attacker's crops, in [0, 1], on the checkpoint's device.
        settings: Which attack, and how.

    Yields:
        Optimiser steps taken, and the images generated then.
    """
    model = FINE_TUNING[settings.name](diffusion, settings)
    for num_steps in fine_tune(model, diffusion, crops, settings):
        yield num_steps, generate(model, diffusion, settings)


def zero_shot_attack(
    diffusion: DiffusionModel,
    adapter: FaceAdapter,
    faces: ToldFaces,
    settings: AttackSettings,
) -> Images:
    """Images of an adapter that is told the faces in turn, as its own encoders read them."""
    model = begin_zero_shot(diffusion, adapter)
    require_width(model, adapter, faces)
    try:
        return generate(model, diffusion, settings, (adapter, faces))
    finally:
        if adapter.identity_net is not None:  # the network is kept; this person's face is not
            adapter.identity_net.face_tokens = None


def untouched_images(diffusion: DiffusionModel, settings: AttackSettings) -> Images:
    """What the checkpoint shows of the prompt before anybody customised it."""
    return generate(copy_of(diffusion), diffusion, settings)
