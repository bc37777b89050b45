"""Methods of others: within the budget, at work on their own loss, fully counted."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dladiff.config import MethodSettings, ModelSettings, preset_settings
from dladiff.diffusion.autoencoder import PORTRAIT_TEMPLATE
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.diffusion.denoising_loss import evaluation_pairs, mean_denoising_loss
from dladiff.diffusion.surrogates import FullSurrogate
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.encoders import Mist, grey_image, striped_image
from dladiff.methods.others.facelock import FaceLock
from dladiff.methods.others.person import Person, budget_of
from dladiff.methods.others.surrogates import AdvDm, MetaCloak
from dladiff.photo_at_work import PhotoAtWork
from dladiff.projected_gradient import project
from dladiff.quality import load_learned_perceptual_distance
from dladiff.results import Cost
from tests.layer1_scenes import TinyEncoder, a_face, random_photo
from tests.tiny_models import write_checkpoint

NUM_STEPS = 7


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """A tiny checkpoint that is made for aligned faces."""
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    loaded = load_diffusion_model(ModelSettings(checkpoint=str(folder)), "cpu")
    return dataclasses.replace(loaded, face_template=PORTRAIT_TEMPLATE)


def person_of(
    diffusion: DiffusionModel, num_steps: int = NUM_STEPS, step_size_levels: float = 0.6375
) -> Person:
    """A photo with a face, and one without."""
    photos = [
        PhotoAtWork.of_images("landscape", random_photo(1, 40, 57), [a_face(12.0, 8.0, 22.0)]),
        PhotoAtWork.of_images("portrait", random_photo(2, 61, 39), []),
    ]
    return Person.begin(
        photos,
        diffusion,
        settings_of(num_steps, step_size_levels),
        Cost(),
        IdentityEncoder("tiny", TinyEncoder().requires_grad_(False)),
        load_learned_perceptual_distance("cpu"),
    )


def settings_of(num_steps: int, step_size_levels: float) -> MethodSettings:
    """Few training steps; ``balanced`` reads no surrogate, but these hand its budgets on."""
    return preset_settings("aspl").changed(
        "surrogates.step0_steps=6",
        f"loop.num_steps={num_steps}",
        f"loop.step_size_levels={step_size_levels}",
    )


def assert_within_budget(person: Person) -> None:
    for instance in person.instances:
        change = instance.photo.perturbation.abs()
        assert bool((change <= budget_of(instance.photo, person.settings) + 1e-6).all())
        assert float(instance.photo.ascent.images.min()) >= 0
        assert float(instance.photo.ascent.images.max()) <= 1
        assert float(change.max()) > 2 / 255


@contextmanager
def counted_rows(*modules: torch.nn.Module) -> Iterator[list[int]]:
    """Rows that modules really see, however they are called."""
    rows: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
        for module in modules
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def denoising_loss_of(baseline: AdvDm, perturbed: bool) -> float:
    """L_den of the baseline's surrogate at fixed pairs (t, e)."""
    person = baseline.person
    latents = person.perturbed_latents() if perturbed else person.clean_latents
    timesteps, noise = evaluation_pairs(len(latents), 16, person.diffusion, seed=77)
    rows = latents.repeat_interleave(16, dim=0)
    predict = baseline.surrogate.predict
    return float(mean_denoising_loss(predict, rows, timesteps, noise, person.diffusion, 64))


def distance_to(person: Person, target: torch.Tensor, perturbed: bool) -> float:
    latents = person.perturbed_latents() if perturbed else person.clean_latents
    return float((latents - target).square().mean())


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_each_keeps_the_budget_and_counts_every_row_that_its_models_see(
    name: str, diffusion: DiffusionModel
) -> None:
    vae = diffusion.vae
    with counted_rows(diffusion.unet) as unet, counted_rows(vae.encoder, vae.decoder) as coder:
        baseline = BASELINES[name](person_of(diffusion))
        baseline.run()
        cost = dataclasses.replace(baseline.person.cost)
    assert baseline.person.num_taken == NUM_STEPS
    assert_within_budget(baseline.person)
    assert cost.unet_forward_backward_pairs + cost.unet_forwards == sum(unet)
    assert cost.vae_passes == sum(coder) > 0
    assert (cost.encoder_passes > 0) == (name == "facelock")
    if isinstance(baseline, AdvDm) and not isinstance(baseline, Mist):
        # At pairs (t, e) that it never drew.
        assert denoising_loss_of(baseline, True) > denoising_loss_of(baseline, False)


@pytest.mark.parametrize("name", ["photoguard", "mist"])
def test_targeted_ones_bring_latents_nearer_to_their_target(
    name: str, diffusion: DiffusionModel
) -> None:
    image = grey_image(32) if name == "photoguard" else striped_image(32)
    with torch.no_grad():
        target = diffusion.encode(image)
    person = person_of(diffusion)
    BASELINES[name](person).run()
    assert distance_to(person, target, True) < distance_to(person, target, False)


def test_untargeted_mist_drives_latents_off_further_than_noise_of_the_same_budget(
    diffusion: DiffusionModel,
) -> None:
    driven, noisy = (person_of(diffusion, 6, 4.0) for _ in range(2))
    BASELINES["mist-untargeted"](driven).run()
    generator = torch.Generator().manual_seed(0)
    for instance in noisy.instances:
        ascent = instance.photo.ascent
        signs = torch.randint(0, 2, ascent.clean.shape, generator=generator) * 2.0 - 1
        ascent.perturbation = project(signs * ascent.epsilon, ascent.clean, ascent.epsilon)
    off, off_by_noise = (distance_to(one, one.clean_latents, True) for one in (driven, noisy))
    assert off > 1.2 * off_by_noise


def test_facelock_hides_the_face_from_its_recogniser_in_what_the_autoencoder_shows(
    diffusion: DiffusionModel,
) -> None:
    baseline = FaceLock(person_of(diffusion))
    baseline.run()
    for number, instance in enumerate(baseline.person.instances):
        with torch.no_grad():
            before = float(baseline.loss(number, instance.photo.clean, 1.0))
            after = float(baseline.loss(number, instance.photo.ascent.images, 1.0))
        assert after > before


def test_caat_trains_keys_and_values_of_cross_attention_and_nothing_else(
    diffusion: DiffusionModel,
) -> None:
    baseline = BASELINES["caat"](person_of(diffusion, 2))
    assert isinstance(baseline, AdvDm)
    baseline.run()
    assert isinstance(baseline.surrogate, FullSurrogate)
    state = baseline.surrogate.state
    own = dict(diffusion.unet.named_parameters())
    changed = {name for name, weight in state.items() if not torch.equal(weight, own[name])}
    assert changed
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in changed)


def test_surrogates_of_metacloak_return_to_the_checkpoint_at_different_times(
    diffusion: DiffusionModel,
) -> None:
    class ShortLived(MetaCloak):
        num_surrogates, life_turns = 2, 4

    baseline = ShortLived(person_of(diffusion, 1))
    own = [weight.clone() for weight in baseline.pool[0].surrogate.weights()]
    distances: list[list[float]] = [[], []]
    for step in range(10):
        baseline.before_step(step)
        pairs = zip(baseline.surrogate.weights(), own, strict=True)
        distances[step % 2].append(sum(float((w - o).abs().sum()) for w, o in pairs))
    falls = [[turn for turn in range(1, 5) if d[turn] < d[turn - 1]] for d in distances]
    assert falls == [[4], [2]]


def test_same_seed_same_change(diffusion: DiffusionModel) -> None:
    first, second = (person_of(diffusion, 1) for _ in range(2))
    for person in (first, second):
        BASELINES["caat"](person).run()
    for one, other in zip(first.instances, second.instances, strict=True):
        torch.testing.assert_close(one.photo.perturbation, other.photo.perturbation, rtol=0, atol=0)
