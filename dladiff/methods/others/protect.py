"""Photos through a method of another paper, as the library and the command ask for it.

Knows the photos of one person, their faces and the method's settings; which loss is raised, each
method says itself.
"""

from collections.abc import Sequence
from dataclasses import replace

from dladiff.config import MethodSettings
from dladiff.layer2.placement import place_face
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.person import BaselineSettings, Effort, Person
from dladiff.models import ProtectionModels
from dladiff.results import Cost, OnProgress
from dladiff.stopwatch import timed
from dladiff.subject import Subject


def protect_by_other_method(
    subjects: Sequence[Subject],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Gives each photo the perturbation of ``config.other``, within the budget map of ours.

    Raises:
        GradientError: If a photo's gradient was zero or not finite.
    """
    name = config.other.name
    if not subjects:
        return
    assert name is not None
    assert models.load_diffusion is not None, "the settings require layer 1"
    with timed(cost, "layer1", models.device):
        person = Person.begin(
            [subject.grid(models) for subject in subjects],
            models.load_diffusion(),
            BaselineSettings.of(config),
            Effort(config.other.num_steps),
            next(iter(models.white_boxes), None),
            models.lpips,
            cost,
        )
        BASELINES[name](person).run(lambda share: report("layer1", share))
    for subject, instance in zip(subjects, person.instances, strict=True):
        subject.instance, subject.stop_reason = instance, "num_steps"
        shape = subject.photo.image.shape
        subject.faces = [
            replace(face, mask_extent=place_face(shape, face, config.layer2).extent)
            for face in subject.faces
        ]
