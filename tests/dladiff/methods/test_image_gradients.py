"""Gradients of layer 1's losses at the pixels: right, complete, and independent of company."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from dladiff.config import MethodSettings
from dladiff.diffusion.attention_maps import AttentionReader, attention_distance, attention_layers
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import add_noise, denoising_loss
from dladiff.diffusion.surrogates import open_surrogates
from dladiff.methods.image_gradients import StepDraw, draw_step, perturbation_gradients
from dladiff.methods.photo_latents import Looks, PhotoEncoder, ViewedPhoto
from dladiff.methods.surrogate_losses import SurrogateLosses
from dladiff.photo_at_work import PhotoAtWork
from dladiff.results import Cost
from tests.layer1_scenes import in_float64


@dataclasses.dataclass
class Scene:
    """Three photos and two surrogates that differ, in float64."""

    diffusion: DiffusionModel
    losses: SurrogateLosses
    instances: list[ViewedPhoto]
    looks: Looks
    cost: Cost

    def draws(self, step: int = 0) -> list[StepDraw]:
        drawn = [draw_step(i, self.looks, self.diffusion, 0, step) for i in self.instances]
        return [dataclasses.replace(draw, noise=draw.noise.double()) for draw in drawn]

    def gradients(
        self, kind: str, draws: list[StepDraw], micro_batch: int = 4, only: slice = slice(None)
    ) -> list[torch.Tensor]:
        return perturbation_gradients(
            self.instances[only],
            draws[only],
            getattr(self.losses, f"{kind}_gradient"),
            self.diffusion,
            micro_batch,
            self.cost,
        )


@pytest.fixture(params=["diffusion", "velocity_diffusion"])
def scene(
    request: pytest.FixtureRequest, photos: list[PhotoAtWork], settings: MethodSettings
) -> Iterator[Scene]:
    diffusion = in_float64(request.getfixturevalue(request.param))
    doubles = [
        PhotoAtWork.of_images(photo.key, photo.clean.double(), photo.found) for photo in photos
    ]
    cost = Cost()
    names = ("static", "dynamic")
    with open_surrogates(diffusion, settings.surrogates, names, seed=0) as surrogates:
        for shift, name in enumerate(names):
            for weight in surrogates[name].weights():
                weight.data = weight.data.double() + 0.02 * (1 + shift)
        reader = AttentionReader(diffusion.unet, attention_layers(diffusion.unet, 16))
        losses = SurrogateLosses(
            surrogates["static"], surrogates["dynamic"], reader, diffusion, cost
        )
        looks = Looks.of(settings)
        encoder = PhotoEncoder(diffusion, looks, 0, 8, cost)
        instances = [encoder.begin(photo, 7 / 255, 0.6375) for photo in doubles]
        yield Scene(diffusion, losses, instances, looks, cost)


def loss_at(scene: Scene, kind: str, index: int, draw: StepDraw, delta: torch.Tensor) -> float:
    """The loss written down once more, without any of the code that sums and batches."""
    instance, diffusion = scene.instances[index], scene.diffusion
    view = instance.views[draw.view_index]
    total = 0.0
    with torch.no_grad():
        seen = draw.handling.apply(instance.photo.clean + delta)
        latents = diffusion.encode(view.look(seen, 32))
        clean = diffusion.encode(view.look(instance.photo.clean, 32))
        for timestep, noise in zip(draw.timesteps[:, None], draw.noise[:, None], strict=True):
            dynamic, static = scene.losses.dynamic.predict, scene.losses.static
            assert static is not None
            if kind == "denoising":
                total += float(denoising_loss(dynamic, latents, timestep, noise, diffusion))
            else:
                reader = scene.losses.reader
                a, b = (
                    reader.read(predict, add_noise(z, timestep, noise, diffusion), timestep)[0]
                    for predict, z in ((static.predict, clean), (dynamic, latents))
                )
                total += float(attention_distance(a, b))
    return total


@pytest.mark.parametrize("kind", ["attention", "denoising"])
def test_each_loss_reaches_the_pixels_and_agrees_with_finite_differences(
    scene: Scene, kind: str
) -> None:
    draws = scene.draws()
    gradients = scene.gradients(kind, draws)
    for index, (instance, gradient) in enumerate(zip(scene.instances, gradients, strict=True)):
        generator = torch.Generator().manual_seed(index)
        direction = torch.randn(gradient.shape, generator=generator).double()
        step = 1e-6
        up, down = (
            loss_at(
                scene, kind, index, draws[index], instance.photo.perturbation + sign * direction
            )
            for sign in (step, -step)
        )
        assert gradient.abs().max() > 0
        along = float((gradient * direction).sum())
        # AutoencoderTiny has kinks (ReLU), hence not closer.
        assert along == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("kind", ["attention", "denoising"])
def test_timesteps_of_one_vae_pass_add_up_to_the_single_gradients(scene: Scene, kind: str) -> None:
    draws = scene.draws()
    together = scene.gradients(kind, draws)
    singles = [
        scene.gradients(
            kind,
            [
                dataclasses.replace(
                    draw,
                    timesteps=draw.timesteps[number : number + 1],
                    noise=draw.noise[number : number + 1],
                )
                for draw in draws
            ],
        )
        for number in range(scene.looks.timesteps_per_step)
    ]
    for index, gradient in enumerate(together):
        total = torch.stack([single[index] for single in singles]).sum(dim=0)
        torch.testing.assert_close(gradient, total, rtol=1e-5, atol=1e-12)


def test_gradients_depend_on_neither_micro_batch_nor_company(scene: Scene) -> None:
    draws = scene.draws()
    together = scene.gradients("attention", draws, micro_batch=4)
    one_by_one = scene.gradients("attention", draws, micro_batch=1)
    alone = scene.gradients("attention", draws, only=slice(1, 2))
    for a, b in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-9, atol=1e-15)


def test_joint_steps_add_both_gradients_at_unit_norm(scene: Scene) -> None:
    draws = scene.draws()
    joint = scene.gradients("joint", draws)
    # Near the sum of the two directions, each scaled by its norm at the latents.
    for kind in ("attention", "denoising"):
        for a, b in zip(joint, scene.gradients(kind, draws), strict=True):
            assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.2


def test_weights_are_frozen_while_gradients_are_taken(scene: Scene) -> None:
    seen: list[bool] = []
    dynamic = scene.losses.dynamic
    weights = [*scene.diffusion.unet.parameters(), *scene.diffusion.vae.parameters()]

    def watch(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gradient = scene.losses.attention_gradient(*arguments)
        seen.append(any(weight.requires_grad for weight in [*weights, *dynamic.weights()]))
        return gradient

    perturbation_gradients(scene.instances, scene.draws(), watch, scene.diffusion, 4, scene.cost)
    assert seen
    assert not any(seen)
    assert all(weight.grad is None for weight in weights)


def test_handling_acts_on_the_perturbed_photo_only_and_draws_are_keyed(scene: Scene) -> None:
    looks = dataclasses.replace(scene.looks, handling=True)
    scene = dataclasses.replace(scene, looks=looks)
    first, again, later = scene.draws(), scene.draws(), scene.draws(1)
    assert [d.handling for d in first] == [d.handling for d in again]
    assert [d.handling for d in first] != [d.handling for d in later]
    before = [instance.clean_latents.clone() for instance in scene.instances]
    assert all(gradient.abs().max() > 0 for gradient in scene.gradients("denoising", first))
    for instance, latents in zip(scene.instances, before, strict=True):
        assert torch.equal(instance.clean_latents, latents)


def test_every_view_is_visited_once_a_round(scene: Scene) -> None:
    visited = [scene.draws(step)[0].view_index for step in range(16)]
    assert sorted(visited[:8]) == sorted(visited[8:]) == list(range(8))


def test_passes_are_counted(scene: Scene) -> None:
    scene.cost.vae_passes = scene.cost.unet_forwards = scene.cost.unet_forward_backward_pairs = 0
    scene.gradients("attention", scene.draws())
    counted = scene.cost.vae_passes, scene.cost.unet_forward_backward_pairs
    assert counted == (3, 3 * 2)
    assert scene.cost.unet_forwards == 3 * 2
