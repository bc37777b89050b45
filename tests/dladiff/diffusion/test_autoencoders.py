"""Autoencoders of every supported family: loading, their latents' scale, refusals by class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderTiny,
)
from torch.nn import functional

from dladiff.config import AutoencoderSettings, ModelSettings
from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.diffusion.checkpoint import load_autoencoder
from dladiff.errors import ModelError
from dladiff.weight_files import autoencoder_folder, checkpoint_folder
from tests.tiny_models import tiny_taesd, tiny_vae

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def stable_diffusion() -> AutoencoderKL:
    return tiny_vae(num_halvings=3)


def sixteen_channels() -> AutoencoderKL:
    """As of Stable Diffusion 3 and FLUX.1: shifted, without convolutions about the latents."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16),
        norm_num_groups=4,
        latent_channels=16,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def playground() -> AutoencoderKL:
    """Statistics of each channel, as of Playground 2.5."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        scaling_factor=0.5,
        latents_mean=(-1.6, 1.1, 2.0, -0.5),
        latents_std=(8.4, 5.9, 6.3, 3.2),
    ).eval()


def flux2() -> AutoencoderKLFlux2:
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 16), norm_num_groups=4, layers_per_block=1, sample_size=64
    )
    vae.bn.running_mean.uniform_(-1, 1)
    vae.bn.running_var.uniform_(0.5, 3)
    return vae.eval()


def qwen_image() -> AutoencoderKLQwenImage:
    torch.manual_seed(0)
    return AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1).eval()


FAMILIES: dict[str, Callable[[], Any]] = {
    "kl": stable_diffusion,
    "kl16": sixteen_channels,
    "kl-channels": playground,
    "flux2": flux2,
    "qwen": qwen_image,
    "tiny": tiny_taesd,
}
RESOLUTIONS = {"kl": 32, "kl16": 64, "kl-channels": 32, "flux2": 64, "qwen": 1024, "tiny": None}


def expected_latents(vae: Any, images: torch.Tensor) -> Any:
    """As the pipelines of diffusers compute them, written out once more."""
    values, config = images * 2 - 1, vae.config
    if isinstance(vae, AutoencoderTiny):
        return vae.encode(values).latents
    if isinstance(vae, AutoencoderKLQwenImage):
        mean = vae.encode(values.unsqueeze(2)).latent_dist.mode().squeeze(2)
        center = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
        return (mean - center) / torch.tensor(config.latents_std).view(1, -1, 1, 1)
    mean = vae.encode(values).latent_dist.mode()
    if isinstance(vae, AutoencoderKLFlux2):
        batch, channels, height, width = mean.shape
        patches = mean.view(batch, channels, height // 2, 2, width // 2, 2)
        patches = patches.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height // 2, width // 2)
        deviation = torch.sqrt(vae.bn.running_var + 1e-4).view(1, -1, 1, 1)
        return (patches - vae.bn.running_mean.view(1, -1, 1, 1)) / deviation
    if config.latents_mean is not None:
        center = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
        return (mean - center) * 0.5 / torch.tensor(config.latents_std).view(1, -1, 1, 1)
    return (mean - (config.shift_factor or 0.0)) * config.scaling_factor


def plain_round_trip(vae: Any, values: torch.Tensor) -> Any:
    if isinstance(vae, AutoencoderTiny):
        return vae.decode(vae.encode(values).latents).sample
    if isinstance(vae, AutoencoderKLQwenImage):
        return vae(values[:, :, None]).sample[:, :, 0]
    return vae(values).sample


@pytest.mark.parametrize("alone", [False, True], ids=["checkpoint", "alone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_latents_of_every_family_have_the_scale_of_its_pipeline(
    family: str, alone: bool, tmp_path: Path
) -> None:
    vae = FAMILIES[family]()
    vae.save_pretrained(tmp_path if alone else tmp_path / "vae")
    side = RESOLUTIONS[family]
    settings = AutoencoderSettings(checkpoint=str(tmp_path), resolution=None if side else 64)
    loaded = load_autoencoder(settings, "cpu")
    assert type(loaded.vae) is type(vae)
    assert loaded.resolution == (side or 64)
    images = torch.rand(2, 3, 64, 64)
    latents = loaded.encode(images)
    torch.testing.assert_close(latents, expected_latents(vae, images), rtol=1e-5, atol=1e-5)
    assert latents.shape[-1] * loaded.vae_scale_factor == 64
    expected = (plain_round_trip(vae, images * 2 - 1) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(loaded.decode(latents), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_gradient_from_what_it_shows_to_the_photo(family: str) -> None:
    vae = FAMILIES[family]().requires_grad_(False)
    autoencoder = Autoencoder(vae=vae, resolution=64)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    shown = autoencoder.decode(autoencoder.encode(images))
    assert shown.shape == images.shape
    (gradient,) = torch.autograd.grad(shown[0].square().sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() > 0
    # Rows of a batch do not see each other.
    assert gradient[1].abs().max() == 0


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_a_hub_id_is_read_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub's cache, as after a download; nothing asks the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, part in (("whole", "vae"), ("alone", "")):
        snapshot = tmp_path / f"models--someone--{name}" / "snapshots" / COMMIT
        flux2().save_pretrained(snapshot / part)
        settings = AutoencoderSettings(checkpoint=f"someone/{name}", revision=COMMIT)
        assert type(load_autoencoder(settings, "cpu").vae) is AutoencoderKLFlux2


def test_another_class_is_refused_by_name_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderDC"}))
    (tmp_path / "model_index.json").write_text("{}")
    message = r"class AutoencoderDC is not supported; supported are AutoencoderKL, .*Flux2"
    extra = AutoencoderSettings(checkpoint=str(tmp_path))
    for refused in (
        lambda: autoencoder_folder(extra),
        lambda: load_autoencoder(extra, "cpu"),
        lambda: checkpoint_folder(ModelSettings(checkpoint=str(tmp_path))),
    ):
        with pytest.raises(ModelError, match=message):
            refused()


def test_another_class_of_the_callers_own_is_refused_too() -> None:
    with pytest.raises(ModelError, match="class AutoencoderDC is not supported"):
        _ = Autoencoder(vae=object.__new__(AutoencoderDC), resolution=64).vae_scale_factor


@pytest.mark.parametrize(
    ("resolution", "message"),
    [(None, "set its resolution"), (65, "no multiple of 2")],
)
def test_a_size_at_which_it_cannot_work_is_refused(
    resolution: int | None, message: str, tmp_path: Path
) -> None:
    tiny_taesd().save_pretrained(tmp_path)
    settings = AutoencoderSettings(checkpoint=str(tmp_path), resolution=resolution)
    with pytest.raises(ModelError, match=message):
        load_autoencoder(settings, "cpu")


def test_statistics_of_flux2_are_of_patches_in_the_order_of_its_pipeline() -> None:
    cells = torch.arange(2 * 4.0).reshape(1, 2, 2, 2)
    patch = functional.pixel_unshuffle(cells, 2).flatten().tolist()
    assert patch == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
