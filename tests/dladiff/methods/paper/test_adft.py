"""Layer 1 as a whole: what it promises, what each part of an epoch does, what it leaves behind."""

import copy
import dataclasses
from collections.abc import Iterator

import pytest
import torch

from dladiff.ascent_loop import ascend
from dladiff.config import MethodSettings, preset_settings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.surrogates import Surrogate
from dladiff.errors import GradientError
from dladiff.image_values import Image, image_to_tensor, tensor_to_image
from dladiff.methods.paper.adft import (
    AdftSchedule,
    FinetuningDefense,
    open_finetuning_defense,
)
from dladiff.photo_at_work import PhotoAtWork
from tests.layer1_scenes import a_face, random_photo

ONE_EPOCH = "surrogates.num_epochs=1"


@pytest.fixture
def defense(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> Iterator[FinetuningDefense]:
    with open_finetuning_defense(photos, [], diffusion, settings) as opened:
        yield opened


def run(diffusion: DiffusionModel, settings: MethodSettings, *changes: str) -> list[Image]:
    """Protects three photos as a caller would and returns them as they would be saved."""
    images = [random_photo(1, 40, 57), random_photo(2, 61, 39), random_photo(3, 48, 48)]
    faces = [[a_face(12.0, 8.0, 22.0)], [], [a_face(10.0, 12.0, 24.0)]]
    keys = ["landscape", "portrait", "square"]
    photos = [PhotoAtWork.of_images(k, x, f) for k, x, f in zip(keys, images, faces, strict=True)]
    reference = PhotoAtWork.of_images("reference", random_photo(4, 50, 50), [])
    chosen = settings.changed(*changes)
    with open_finetuning_defense(photos, [reference], diffusion, chosen) as defense:
        defense.run()
        return [
            tensor_to_image((x + instance.photo.native_perturbation()).clamp(0, 1))
            for x, instance in zip(images, defense.instances, strict=True)
        ]


@pytest.fixture(scope="module")
def usual(diffusion: DiffusionModel, settings: MethodSettings) -> list[Image]:
    """Of one epoch, with the settings as they are."""
    return run(diffusion, settings, ONE_EPOCH)


def snapshot(surrogate: Surrogate) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in surrogate.weights()]


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_the_budget_holds_on_the_saved_photos_of_any_shape(
    diffusion: DiffusionModel, settings: MethodSettings, adaptation: str
) -> None:
    step = f"surrogates.adaptation={adaptation}", "surrogates.step_size_levels=3"
    protected = run(diffusion, settings, *step, "handling=true")
    for clean, image in zip(
        [random_photo(1, 40, 57), random_photo(2, 61, 39), random_photo(3, 48, 48)],
        protected,
        strict=True,
    ):
        change = (image_to_tensor(image) - clean).abs() * 255
        assert image.shape == (*clean.shape[-2:], 3)
        assert round(float(change.max()), 3) == 7.0
        assert float((change > 0).float().mean()) > 0.8


def test_the_same_seed_gives_the_same_photos_and_another_one_others(
    diffusion: DiffusionModel, settings: MethodSettings, usual: list[Image]
) -> None:
    again, other = (run(diffusion, settings, f"seed={seed}", ONE_EPOCH) for seed in (0, 1))
    assert all((a == b).all() for a, b in zip(usual, again, strict=True))
    assert not any((a == b).all() for a, b in zip(usual, other, strict=True))


def test_nothing_of_the_person_stays_in_the_checkpoint(
    diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    modules = [diffusion.unet, diffusion.vae, diffusion.text_encoder]
    before = copy.deepcopy([module.state_dict() for module in modules])
    run(diffusion, settings)
    for module, state in zip(modules, before, strict=True):
        after = module.state_dict()
        assert after.keys() == state.keys()
        assert all(torch.equal(after[name], weight) for name, weight in state.items())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_step_0_moves_the_static_surrogate_only(defense: FinetuningDefense) -> None:
    dynamic = snapshot(defense.surrogates["dynamic"])
    static = snapshot(defense.surrogates["static"])
    defense.train_static_surrogate()
    assert not all(map(torch.equal, static, defense.surrogates["static"].weights()))
    assert all(map(torch.equal, dynamic, defense.surrogates["dynamic"].weights()))


def test_an_epoch_leaves_the_static_surrogate_bit_identical(defense: FinetuningDefense) -> None:
    defense.train_static_surrogate()
    static = snapshot(defense.surrogates["static"])
    dynamic = snapshot(defense.surrogates["dynamic"])
    defense.alternate()
    assert all(map(torch.equal, static, defense.surrogates["static"].weights()))
    assert not all(map(torch.equal, dynamic, defense.surrogates["dynamic"].weights()))


def test_k1_raises_the_attention_loss(defense: FinetuningDefense) -> None:
    defense.train_static_surrogate()
    before = defense.measure(perturbed=False).attention
    for _ in range(12):
        ascend(defense.photos, [defense.up(defense.losses.attention_gradient)], "test")
    assert defense.measure(perturbed=True).attention > before


def test_k2_raises_the_denoising_loss_and_k3_lowers_it(defense: FinetuningDefense) -> None:
    before = defense.measure(perturbed=False).denoising
    for _ in range(12):
        ascend(defense.photos, [defense.up(defense.losses.denoising_gradient)], "test")
    raised = defense.measure(perturbed=True).denoising
    assert raised > before
    latents = defense.encoder.attackers_latents(defense.instances, perturbed=True)
    defense.dynamic_tuner.train(latents, 20, torch.Generator().manual_seed(0))
    assert defense.measure(perturbed=True).denoising < raised


def test_no_parameter_requires_a_gradient_while_perturbations_change(
    defense: FinetuningDefense, monkeypatch: pytest.MonkeyPatch
) -> None:
    required: list[bool] = []
    original = DiffusionModel.encode

    def watch(model: DiffusionModel, images: torch.Tensor) -> torch.Tensor:
        weights = [*model.unet.parameters(), *model.vae.parameters()]
        required.append(any(weight.requires_grad for weight in weights))
        return original(model, images)

    monkeypatch.setattr(DiffusionModel, "encode", watch)
    defense.train_static_surrogate()
    defense.alternate()
    defense.alternate()
    assert len(required) >= 8
    assert not any(required)


def test_the_perturbation_is_projected_around_the_original_photo(
    defense: FinetuningDefense,
) -> None:
    for instance in defense.instances:
        instance.photo.ascent.perturbation = torch.full_like(instance.photo.perturbation, 0.5)
    ascend(defense.photos, [defense.up(defense.losses.denoising_gradient)], "test")
    for instance in defense.instances:
        assert float(instance.photo.perturbation.abs().max()) <= 7 / 255 + 1e-7
        images = instance.photo.clean + instance.photo.perturbation
        assert float(images.min()) >= 0
        assert float(images.max()) <= 1


def test_equal_surrogates_still_give_the_attention_loss_a_gradient(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    chosen = settings.changed("surrogates.step0_steps=0")
    with open_finetuning_defense(photos, [], diffusion, chosen) as defense:
        starts = [instance.photo.perturbation.clone() for instance in defense.instances]
        ascend(defense.photos, [defense.up(defense.losses.attention_gradient)], "test")
        for start, instance in zip(starts, defense.instances, strict=True):
            moved = (instance.photo.perturbation - start).abs() > 0
            assert float(moved.float().mean()) > 0.5
            instance.photo.ascent.require_live("attention")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_gradient_that_protects_nothing_is_an_error(
    diffusion: DiffusionModel, settings: MethodSettings, value: float
) -> None:
    broken = dataclasses.replace(diffusion, vae=copy.deepcopy(diffusion.vae))
    broken.vae.encoder.conv_in.weight.data.fill_(value)
    with pytest.raises(GradientError, match="layer 1, epoch 1"):
        run(broken, settings)
    assert not any("lora" in name for name, _ in diffusion.unet.named_modules())


def test_ablations_keep_the_number_of_signed_steps() -> None:
    plain = preset_settings("paper")
    no_dsur = plain.changed("paper.dual_surrogates=false")
    no_adft = plain.changed("paper.dynamic_fine_tuning=false")
    assert AdftSchedule.of(plain) == AdftSchedule(3, 6, 3)
    assert AdftSchedule.of(no_dsur) == AdftSchedule(0, 9, 3)
    assert AdftSchedule.of(no_adft) == AdftSchedule(3, 6, 0)


def test_without_adft_the_dynamic_surrogate_stays_the_checkpoint(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    changed = settings.changed("paper.dynamic_fine_tuning=false")
    with open_finetuning_defense(photos, [], diffusion, changed) as defense:
        before = snapshot(defense.surrogates["dynamic"])
        defense.run()
        assert all(map(torch.equal, before, defense.surrogates["dynamic"].weights()))


def test_the_dynamic_surrogate_returns_to_the_checkpoint_when_asked(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    changed = settings.changed("paper.dynamic_reset_epochs=1", "surrogates.surrogate_steps=0")
    with open_finetuning_defense(photos, [], diffusion, changed) as defense:
        start = snapshot(defense.surrogates["dynamic"])
        defense.alternate()
        for weight in defense.surrogates["dynamic"].weights():
            weight.add_(1.0)
        defense.alternate()
        assert all(map(torch.equal, start, defense.surrogates["dynamic"].weights()))


@pytest.mark.parametrize(
    "changes",
    [
        ["paper.joint_steps=true"],
        ["paper.joint_steps=true", "paper.dual_surrogates=false"],
        ["paper.timestep_choice=gradient"],
        ["paper.include_largest_maps=true", "paper.drop_bos=false", "paper.use_views=false"],
    ],
)
def test_options_stay_within_the_budget_and_change_the_photos(
    diffusion: DiffusionModel,
    settings: MethodSettings,
    usual: list[Image],
    changes: list[str],
) -> None:
    protected = run(diffusion, settings, ONE_EPOCH, *changes)
    cleans = [random_photo(1, 40, 57), random_photo(2, 61, 39), random_photo(3, 48, 48)]
    for clean, image, other in zip(cleans, protected, usual, strict=True):
        change = (image_to_tensor(image) - clean).abs() * 255
        assert 1 <= round(float(change.max()), 3) <= 7
        assert not (image == other).all(), "the option changes nothing"


def test_progress_metrics_and_cost_are_reported(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    told: list[tuple[str, float]] = []
    with open_finetuning_defense(photos, [], diffusion, settings) as defense:
        defense.run(lambda stage, fraction: told.append((stage, fraction)))
    assert told == [("layer1", 0.5), ("layer1", 1.0)]
    cost = defense.cost
    assert set(cost.seconds) == {"step0", "layer1"}
    # Step 0, signed steps at T timesteps, and K3; batches hold 3 or 4 photos.
    signed = 2 * (2 + 2) * 3 * 2
    trained = 8 * 4 + 2 * 2 * 3
    assert cost.unet_forward_backward_pairs == signed + trained
    assert cost.peak_memory_gb > 0


def test_references_are_read_by_step_0_only(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    with open_finetuning_defense(photos[:1], photos[1:], diffusion, settings) as defense:
        alone = [instance.clean_latents for instance in defense.instances]
        defense.train_static_surrogate()
        with_reference = snapshot(defense.surrogates["static"])
        assert len(defense.instances) == len(alone) == 1
    with open_finetuning_defense(photos[:1], [], diffusion, settings) as defense:
        defense.train_static_surrogate()
        # The references change what Step 0 learns, and nothing is made of them.
        assert not all(map(torch.equal, with_reference, snapshot(defense.surrogates["static"])))


def test_surrogates_of_full_weights_work(
    photos: list[PhotoAtWork], diffusion: DiffusionModel, settings: MethodSettings
) -> None:
    full = "adaptation: full, step0_steps: 4, learning_rate: 1.0e-3, num_epochs: 1"
    changed = settings.changed(f"surrogates={{{full}}}")
    with open_finetuning_defense(photos, [], diffusion, changed) as defense:
        result = defense.run()
    assert result.losses_after != result.losses_before
