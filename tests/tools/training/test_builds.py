"""Two builds, alike outside and unlike inside, and what is exported of the attacker's."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from dladiff.weight_files import EMBEDDED_CHECKPOINT
from tools.training.builds import BUILDS, BuildName
from tools.training.captions import MAX_TOKENS
from tools.training.export_reference_models import export_model
from tools.training.train_autoencoder import build_autoencoder
from tools.training.train_unet import Denoiser, assemble_pipeline


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A work folder with the attacker's model as its training leaves it."""
    torch.manual_seed(0)
    build: BuildName = "attacker-128"
    build_autoencoder(BUILDS[build]).save_pretrained(tmp_path / "work" / "vae")
    state = {"build": build, "averaged": Denoiser(BUILDS[build]).state_dict()}
    torch.save(state, tmp_path / "work" / "denoiser.pt")
    return tmp_path / "work"


def test_the_build_that_protects_is_the_one_that_is_installed() -> None:
    shipped = StableDiffusionPipeline.from_pretrained(EMBEDDED_CHECKPOINT)
    build = BUILDS["faces-128"]
    vae, denoiser = build_autoencoder(build), Denoiser(build)
    assert shapes(vae) == shapes(shipped.vae)
    assert shapes(assemble_pipeline(vae, denoiser).unet) == shapes(shipped.unet)
    assert shipped.vae.config.norm_num_groups == vae.config.norm_num_groups
    assert tuple(shipped.unet.config.attention_head_dim) == build.attention_heads


@pytest.mark.slow
def test_the_attackers_build_is_exported_alone_small_and_ready_to_use(
    trained: Path, tmp_path: Path
) -> None:
    export_model(trained, tmp_path / "models", "attacker-128")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["attacker-128"]
    folder = tmp_path / "models" / "attacker-128"
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 30_000_000
    assert len(json.loads((folder / "face_template.json").read_text())["landmarks"]) == 5
    assert str(tmp_path) not in (folder / "vae" / "config.json").read_text()

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels == 4
    image = pipeline("a photo of sks person", num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 128, 128, 3)


def test_a_model_of_one_build_is_not_exported_as_another(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --build attacker-128"):
        export_model(trained, tmp_path / "models", "faces-128")


def test_the_attackers_adapter_is_heard_too() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(BUILDS["attacker-128"]).eval()
    noisy, ids = torch.randn(1, 4, 16, 16), torch.ones(1, MAX_TOKENS, dtype=torch.long)
    with torch.no_grad():
        alone = denoiser(noisy, torch.tensor([500]), ids)
        told = denoiser(noisy, torch.tensor([500]), ids, torch.eye(1, 128))
    assert alone.shape == noisy.shape
    assert not torch.allclose(alone, told, atol=1e-6)
