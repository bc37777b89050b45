"""Mechanics of the attacks, on the real classes at tiny size."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from dladiff.config import ModelSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.evaluation.attacks.attack import (
    FINE_TUNING,
    fine_tuning_attack,
    untouched_images,
)
from dladiff.evaluation.attacks.customised import fine_tune
from dladiff.evaluation.attacks.textual_inversion import begin_textual_inversion
from dladiff.evaluation.purification import gridpure, sdedit
from dladiff.evaluation.settings import AttackName, AttackSettings, attack_settings
from tests.tiny_models import write_checkpoint

FINE_TUNINGS: tuple[AttackName, ...] = ("dreambooth", "lora", "textual_inversion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def diffusion(folder: Path) -> DiffusionModel:
    return load_diffusion_model(ModelSettings(checkpoint=str(folder)), "cpu")


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def few_steps(name: AttackName, **changes: object) -> AttackSettings:
    values = attack_settings(name, aligned_faces=True).model_dump()
    steps = {"num_steps": 5, "num_images": 3, "num_inference_steps": 2, "images_per_batch": 2}
    return AttackSettings(**(values | steps | changes))


def state(diffusion: DiffusionModel) -> list[torch.Tensor]:
    modules = diffusion.unet, diffusion.text_encoder, diffusion.vae
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


@pytest.mark.parametrize("name", FINE_TUNINGS)
def test_an_attack_stops_twice_and_leaves_the_checkpoint_bit_for_bit(
    name: AttackName, diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    before = state(diffusion)
    stops = list(fine_tuning_attack(diffusion, crops, few_steps(name)))
    assert [num_steps for num_steps, _ in stops] == [3, 5]
    assert all(images.shape == (3, 3, 32, 32) for _, images in stops)
    assert not torch.equal(stops[0][1], stops[1][1])
    assert all(torch.equal(*pair) for pair in zip(before, state(diffusion), strict=True))
    assert not any(weight.requires_grad for weight in diffusion.unet.parameters())


@pytest.mark.parametrize("name", FINE_TUNINGS)
def test_the_same_seed_gives_the_same_images_and_another_one_others(
    name: AttackName, diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    first, again, other = (
        list(fine_tuning_attack(diffusion, crops, few_steps(name, seed=seed)))[-1][1]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_lowers_the_loss_on_what_it_saw(
    diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    """The real loop must learn: a loop that does not would make every protection look perfect."""
    from dladiff.diffusion.denoising_loss import evaluation_pairs, mean_denoising_loss

    latents = diffusion.encode(crops[:1])
    pairs = evaluation_pairs(1, 32, diffusion, seed=3)

    def loss(unet: torch.nn.Module) -> float:
        def predict(noisy: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            embeds = diffusion.prompt_embeds.expand(len(noisy), -1, -1)
            prediction: torch.Tensor = unet(noisy, at, embeds).sample
            return prediction

        rows = latents.expand(32, -1, -1, -1)
        return float(mean_denoising_loss(predict, rows, *pairs, diffusion, 8))

    settings = few_steps("dreambooth", num_steps=40, learning_rate=2e-3, stops=(1.0,))
    model = FINE_TUNING["dreambooth"](diffusion, settings)
    before = loss(model.unet)
    assert list(fine_tune(model, diffusion, crops[:1], settings)) == [40]
    assert loss(model.unet) < 0.8 * before


def test_dreambooth_trains_the_text_encoder_only_if_asked(diffusion: DiffusionModel) -> None:
    alone = FINE_TUNING["dreambooth"](diffusion, few_steps("dreambooth"))
    both = FINE_TUNING["dreambooth"](diffusion, few_steps("dreambooth", train_text_encoder=True))
    assert alone.text_encoder is diffusion.text_encoder
    assert len(both.weights) > len(alone.weights)
    assert both.learns_text


def test_lora_learns_adapters_alone(diffusion: DiffusionModel) -> None:
    model = FINE_TUNING["lora"](diffusion, few_steps("lora"))
    names = [name for name, weight in model.unet.named_parameters() if weight.requires_grad]
    assert names
    assert all("lora_" in name for name in names)


def test_textual_inversion_moves_the_rows_of_its_word_and_no_other(
    diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    settings = few_steps("textual_inversion")
    model = begin_textual_inversion(diffusion, settings)
    list(fine_tune(model, diffusion, crops, settings))
    before = diffusion.text_encoder.get_input_embeddings().weight
    moved = (model.text_encoder.get_input_embeddings().weight != before).any(dim=1)
    word = set(diffusion.tokenizer("sks", add_special_tokens=False).input_ids)
    assert set(moved.nonzero().flatten().tolist()) == word


def test_textual_inversion_needs_its_word_in_the_prompt(diffusion: DiffusionModel) -> None:
    with pytest.raises(ValueError, match="lacks the word"):
        begin_textual_inversion(diffusion, few_steps("textual_inversion", prompt="a photo"))


def test_sampling_is_that_of_the_checkpoints_own_pipeline(
    folder: Path, diffusion: DiffusionModel
) -> None:
    settings = few_steps("untouched", num_images=2, num_inference_steps=4)
    ours = untouched_images(diffusion, settings)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", steps_offset=1)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        dtype=torch.float32,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        [settings.prompt] * 2,
        num_inference_steps=4,
        guidance_scale=settings.guidance_scale,
        generator=torch.Generator().manual_seed(settings.seed + 1),
        output_type="pt",
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_batches_do_not_change_what_is_sampled(diffusion: DiffusionModel) -> None:
    at_once, in_parts = (
        untouched_images(diffusion, few_steps("untouched", images_per_batch=size))
        for size in (3, 2)
    )
    assert torch.allclose(at_once, in_parts, atol=1e-5)


def test_purification_keeps_the_size_and_the_range(
    diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    for purified in (sdedit(diffusion, crops, 0.3, 3, seed=0), gridpure(diffusion, crops, seed=0)):
        assert purified.shape == crops.shape
        assert 0 <= float(purified.min()) <= float(purified.max()) <= 1
        assert not torch.equal(purified, crops)


def test_sdedit_of_no_strength_is_the_autoencoder(
    diffusion: DiffusionModel, crops: torch.Tensor
) -> None:
    weak = sdedit(diffusion, crops, 0.001, 1, seed=0)
    decoded = diffusion.decode(diffusion.encode(crops))
    strong = sdedit(diffusion, crops, 0.9, 3, seed=0)
    assert (weak - decoded).abs().mean() < 0.3 * (strong - decoded).abs().mean()
