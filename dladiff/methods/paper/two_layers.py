"""Layer 1 by surrogates, then layer 2 on top, as the paper has it: for what no one loop serves.

Surrogates are imported where they work: that takes seconds, and many runs need none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dladiff.config import MethodSettings
from dladiff.image_values import levels_to_unit
from dladiff.methods.paper.identity_defense import defend_identity
from dladiff.models import ProtectionModels
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.results import Cost, OnProgress, Photo
from dladiff.stopwatch import timed

if TYPE_CHECKING:
    from dladiff.methods.paper.adft import FinetuningDefense, Layer1Metrics
    from dladiff.methods.surrogate_losses import Layer1Losses


@dataclass(frozen=True)
class Layer1Outcome:
    """What surrogates measured of layer 1, of the set as a whole."""

    metrics: "Layer1Metrics | None" = None
    losses_after_layer2: "Layer1Losses | None" = None
    """Losses of the photos as they are served; None without layer 2."""


def protect_in_two_layers(
    photos: Sequence[PhotoAtWork],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> Layer1Outcome:
    """DSUR and ADFT on whole photos, then layer 2 on top of them, as the paper has it."""
    if not photos:
        return Layer1Outcome()
    metrics, losses = None, None
    with _layer1(photos, references, models, config, cost) as layer1:
        if layer1 is not None:
            metrics = layer1.run(report)
            for photo in photos:
                photo.by_surrogates = True
        if config.looks_at_photo:
            with timed(cost, "layer2", models.device):
                _add_layer2(photos, models, config, cost, report)
            if layer1 is not None and metrics is not None:
                from dladiff.methods.paper.interplay import reconcile

                for photo in photos:
                    photo.bear(_delta_zs(photo, config))
                losses = reconcile(layer1, metrics)
    return Layer1Outcome(metrics, losses)


@contextmanager
def _layer1(
    photos: Sequence[PhotoAtWork],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
) -> Iterator["FinetuningDefense | None"]:
    """Layer 1 with its surrogates, which live as long as the context; None where disabled."""
    if models.load_diffusion is None or not config.reads_model:
        yield None
        return
    from dladiff.methods.paper.adft import open_finetuning_defense

    missing = max(0, config.num_references - len(photos))
    others = [
        PhotoAtWork.seen_by(models.detector, photo, models.device) for photo in references[:missing]
    ]
    with open_finetuning_defense(
        photos=photos,
        references=others,
        diffusion=models.load_diffusion(),
        method=config,
        cost=cost,
    ) as layer1:
        yield layer1


def _add_layer2(
    photos: Sequence[PhotoAtWork],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Layer 2's perturbations on top of what each photo has."""
    cost.encoder_passes += defend_identity(
        photos,
        models.encoders,
        config,
        models.device,
        lambda fraction: report("layer2", fraction),
    )


def _delta_zs(photo: PhotoAtWork, config: MethodSettings) -> NativePhoto:
    """Layer 2's part of a photo, as it acts on top of layer 1's."""
    base = photo.perturbed()
    return photo.with_added(base, levels_to_unit(config.budget.zero_shot_levels)) - base
