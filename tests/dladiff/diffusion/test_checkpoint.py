"""Loading a checkpoint, and what its parts do around the UNet."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dladiff.config import ModelSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.errors import ModelError


def load(folder: Path, **changes: object) -> DiffusionModel:
    return load_diffusion_model(
        ModelSettings.model_validate({"checkpoint": str(folder), **changes}), "cpu"
    )


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "copy"))


def test_everything_is_frozen_and_in_evaluation_mode(diffusion: DiffusionModel) -> None:
    for module in (diffusion.unet, diffusion.vae, diffusion.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_loading_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(checkpoint)
    assert capfd.readouterr() == ("", "")


def test_resolution_is_the_checkpoints_unless_set(checkpoint: Path) -> None:
    assert load(checkpoint).resolution == 32
    assert load(checkpoint, resolution=64).resolution == 64


def test_latents_are_the_posteriors_mean_times_the_scaling_factor(
    diffusion: DiffusionModel,
) -> None:
    images = torch.rand(2, 3, 32, 32)
    posterior = diffusion.vae.encode(images * 2 - 1).latent_dist
    torch.testing.assert_close(diffusion.encode(images), posterior.mean * 4.0)
    torch.testing.assert_close(diffusion.encode(images), diffusion.encode(images), rtol=0, atol=0)


def test_latents_of_a_shifted_vae_are_shifted_before_scaling(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = copy_of(checkpoint, tmp_path)
    config = json.loads((folder / "vae" / "config.json").read_text()) | {"shift_factor": 0.25}
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    shifted, plain = load(folder), load(checkpoint)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(shifted.encode(images), plain.encode(images) - 0.25 * 4.0)
    torch.testing.assert_close(
        shifted.decode(shifted.encode(images)), plain.decode(plain.encode(images))
    )


def test_latents_of_an_autoencoder_tiny_are_its_output(
    velocity_diffusion: DiffusionModel,
) -> None:
    images = torch.rand(2, 3, 32, 32)
    expected = velocity_diffusion.vae.encode(images * 2 - 1).latents
    torch.testing.assert_close(velocity_diffusion.encode(images), expected)
    assert velocity_diffusion.prediction_type == "v_prediction"


def test_prompt_is_embedded_as_the_text_encoder_does(diffusion: DiffusionModel) -> None:
    tokens = diffusion.tokenizer(
        "a photo of sks person", padding="max_length", max_length=24, return_tensors="pt"
    )
    expected = diffusion.text_encoder(tokens.input_ids)[0]
    torch.testing.assert_close(diffusion.prompt_embeds, expected)
    # "sks" is no word of a tokenizer's; it must not be taken for a single token.
    assert len(diffusion.tokenizer("sks").input_ids) > 3


def test_a_prompt_that_is_too_long_is_refused(diffusion: DiffusionModel) -> None:
    with pytest.raises(ValueError, match="at most 24 tokens, got 32"):
        diffusion.embed_prompt("x" * 30)


def test_weights_given_to_predict_stand_in_for_the_unets_own(diffusion: DiffusionModel) -> None:
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    zeros = {n: torch.zeros_like(p) for n, p in diffusion.unet.named_parameters()}
    before = diffusion.predict(noisy, timesteps)
    assert diffusion.predict(noisy, timesteps, weights=zeros).abs().max() == 0
    torch.testing.assert_close(diffusion.predict(noisy, timesteps), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("checkpoint_name", "revision", "message"),
    [
        ("./nowhere", None, "no such folder"),
        ("someone/model", None, "revision to a commit hash"),
    ],
)
def test_a_checkpoint_that_cannot_be_found_is_refused_with_the_remedy(
    checkpoint_name: str, revision: str | None, message: str
) -> None:
    settings = ModelSettings(checkpoint=checkpoint_name, revision=revision)
    with pytest.raises(ModelError, match=message):
        load_diffusion_model(settings, "cpu")


def test_an_absent_embedded_checkpoint_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dladiff.weight_files.EMBEDDED_CHECKPOINT", tmp_path)
    with pytest.raises(ModelError, match="name another one in"):
        load_diffusion_model(ModelSettings(), "cpu")


def test_the_attackers_checkpoint_goes_by_its_short_name(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ModelSettings(checkpoint="attacker")
    monkeypatch.setattr("dladiff.weight_files.ATTACKERS_CHECKPOINT", checkpoint)
    assert load_diffusion_model(settings, "cpu").resolution == load(checkpoint).resolution
    monkeypatch.setattr("dladiff.weight_files.ATTACKERS_CHECKPOINT", tmp_path)
    with pytest.raises(ModelError, match="attacker's diffusion checkpoint is not installed"):
        load_diffusion_model(settings, "cpu")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load(tmp_path)


def test_weights_that_are_not_safetensors_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_of(checkpoint, tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match=r"its unet cannot be loaded.*safetensors only"):
        load(folder)


def test_damaged_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_of(checkpoint, tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="its vae cannot be loaded"):
        load(folder)


def test_another_kind_of_prediction_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_of(checkpoint, tmp_path)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(ModelError, match="'sample' is neither epsilon nor v_prediction"):
        load(folder)


def test_template_and_learning_rates_stored_beside_a_checkpoint_are_read(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = copy_of(checkpoint, tmp_path)
    landmarks = [[0.355, 0.45], [0.645, 0.45], [0.5, 0.61], [0.38, 0.755], [0.62, 0.755]]
    (folder / "face_template.json").write_text(json.dumps({"landmarks": landmarks}))
    (folder / "learning_rates.json").write_text(json.dumps({"lora": 0.002}))
    loaded = load(folder)
    assert loaded.face_template is not None
    torch.testing.assert_close(loaded.face_template, torch.tensor(landmarks))
    assert loaded.learning_rates == {"lora": 0.002}
    (folder / "face_template.json").write_text(json.dumps({"landmarks": landmarks[:4]}))
    with pytest.raises(ModelError, match="expected five"):
        load(folder)
