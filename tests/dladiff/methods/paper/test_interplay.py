"""Layer 2 on top of layer 1: measured, and repaired where it takes too much."""

import torch

from dladiff.config import MethodSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.methods.paper.adft import FinetuningDefense, open_finetuning_defense
from dladiff.methods.paper.interplay import reconcile
from dladiff.photo_at_work import PhotoAtWork


def perturbations(layer1: FinetuningDefense) -> list[torch.Tensor]:
    return [instance.photo.native_perturbation() for instance in layer1.instances]


def test_without_layer_2_nothing_changes(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    with open_finetuning_defense(photos, [], diffusion, settings) as layer1:
        metrics = layer1.run()
        before = perturbations(layer1)
        losses = reconcile(layer1, metrics)
        after = perturbations(layer1)
    assert losses == metrics.losses_after
    assert all(map(torch.equal, before, after))


def test_a_layer_2_that_undoes_layer_1_is_answered_within_the_budget(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    with open_finetuning_defense(photos, [], diffusion, settings) as layer1:
        metrics = layer1.run()
        before = perturbations(layer1)
        undo = [-delta for delta in before]
        for instance, fixed in zip(layer1.instances, undo, strict=True):
            instance.photo.bear(fixed)
        unrepaired = layer1.measure(perturbed=True)
        losses = reconcile(layer1, metrics)
        after = perturbations(layer1)
    assert losses.denoising > unrepaired.denoising
    for photo, old, new, fixed in zip(photos, before, after, undo, strict=True):
        assert not torch.equal(old, new)
        assert float(new.abs().max()) <= 7 / 255 + 1e-7
        total = (photo.clean + fixed).clamp(0, 1) + new
        assert float(total.min()) >= -1e-6
        assert float(total.max()) <= 1 + 1e-6
