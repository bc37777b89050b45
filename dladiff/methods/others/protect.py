"""Photos through a method of another paper, as the library and the command ask for it.

Knows the photos of one person, their faces and the method's settings; which loss is raised, each
method says itself.
"""

from collections.abc import Sequence

from dladiff.config import MethodSettings
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.person import Person
from dladiff.models import ProtectionModels
from dladiff.photo_at_work import PhotoAtWork, place_faces
from dladiff.results import Cost, OnProgress
from dladiff.stopwatch import timed


def protect_by_other_method(
    photos: Sequence[PhotoAtWork],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Gives each photo the perturbation of ``config.other``, within the budget map of ours.

    Raises:
        GradientError: If a photo's gradient was zero or not finite.
    """
    name = config.other
    if not photos:
        return
    assert name is not None
    assert models.load_diffusion is not None, "the settings require a checkpoint"
    with timed(cost, "layer1", models.device):
        person = Person.begin(
            photos,
            models.load_diffusion(),
            config,
            cost,
            next(iter(models.white_boxes), None),
            models.lpips,
        )
        BASELINES[name](person).run(lambda share: report("layer1", share))
    for photo in photos:
        photo.stop_reason = "num_steps"
        place_faces(photo, config.budget.box_scale)
