"""PSNR, SSIM and LPIPS, each against an independent definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dladiff import quality
from dladiff.errors import ModelError
from dladiff.image_values import Image, image_to_tensor
from dladiff.quality import (
    LearnedPerceptualDistance,
    load_learned_perceptual_distance,
    psnr_db,
    ssim,
)

_SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))


@pytest.fixture
def pair(astronaut: Image) -> tuple[Image, Image]:
    """A photo, and the same with noise in one part of it."""
    clean = np.ascontiguousarray(astronaut[:160, 100:300])
    noisy = clean.copy()
    noise = np.random.default_rng(0).integers(-9, 10, (60, 70, 3))
    part = clean[40:100, 60:130].astype(np.int16) + noise
    noisy[40:100, 60:130] = part.clip(0, 255).astype(np.uint8)
    return clean, noisy


def _lpips_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer, (outputs, inputs, side) in enumerate(_SHAPES):
        spread = math.sqrt(2 / (inputs * side * side))
        kernel = torch.randn(outputs, inputs, side, side, generator=generator) * spread
        weights[f"net.{layer}.weight"] = kernel
        weights[f"net.{layer}.bias"] = torch.zeros(outputs)
        weights[f"lin.{layer}.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    return weights


def test_psnr_agrees_with_scikit_image(pair: tuple[Image, Image]) -> None:
    assert psnr_db(*pair) == pytest.approx(peak_signal_noise_ratio(*pair), abs=1e-6)
    assert psnr_db(pair[0], pair[0]) == math.inf


def test_ssim_of_the_changed_part_is_that_of_the_whole_photo(pair: tuple[Image, Image]) -> None:
    _, whole = structural_similarity(
        *pair,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(*pair) == pytest.approx(whole.mean(), abs=1e-4)
    assert ssim(*pair) < 0.995
    assert ssim(pair[0], pair[0]) == 1.0


def test_tall_photos_are_measured_in_bands_of_rows_without_a_seam(
    astronaut: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = np.ascontiguousarray(astronaut[:, 150:260])
    noise = np.random.default_rng(0).integers(-9, 10, clean.shape)
    noisy = (clean.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    whole = psnr_db(clean, noisy), ssim(clean, noisy)
    # 512 rows: five bands, the last of which takes the two rows left.
    monkeypatch.setattr(quality, "_BAND_ROWS", 102)
    in_bands = psnr_db(clean, noisy), ssim(clean, noisy)
    assert in_bands == pytest.approx(whole, abs=1e-6)


def test_a_change_at_the_border_is_measured_too(pair: tuple[Image, Image]) -> None:
    clean, _ = pair
    changed = clean.copy()
    changed[0, 0] = 255 - changed[0, 0]
    assert 0.9 < ssim(clean, changed) < 1.0


def test_lpips_is_the_weighted_distance_of_unit_features(
    tmp_path: Path, pair: tuple[Image, Image]
) -> None:
    weights = _lpips_weights()
    save_file(weights, tmp_path / "lpips.safetensors")
    lpips = load_learned_perceptual_distance("cpu", tmp_path / "lpips.safetensors")
    assert lpips is not None
    strides, paddings = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
    hidden = torch.cat([image_to_tensor(image) for image in pair]) * 2 - 1
    shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    for channel in range(3):
        hidden[:, channel] = (hidden[:, channel] - shift[channel]) / scale[channel]
    expected = 0.0
    for layer in range(5):
        if layer in (1, 2):
            hidden = torch.max_pool2d(hidden, 3, 2)
        kernel, bias = weights[f"net.{layer}.weight"], weights[f"net.{layer}.bias"]
        hidden = torch.conv2d(hidden, kernel, bias, strides[layer], paddings[layer]).relu()
        unit = torch.nn.functional.normalize(hidden, dim=1)
        share = weights[f"lin.{layer}.weight"].reshape(-1)
        squared = (unit[0] - unit[1]).square().mean(dim=(1, 2))
        expected += float((squared * share).sum())
    assert lpips.between(*pair) == pytest.approx(expected, rel=1e-4)
    assert lpips.between(pair[0], pair[0]) == 0.0


def test_lpips_has_a_finite_gradient_where_no_channel_is_active() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(quality._unit_channels(features).sum(), features)
    assert torch.isfinite(gradient).all()


def test_lpips_weights_that_lack_a_layer_are_refused() -> None:
    weights = _lpips_weights()
    del weights["lin.3.weight"]
    with pytest.raises(ModelError, match=r"lack 'lin\.3\.weight'"):
        LearnedPerceptualDistance(weights)


def test_a_named_lpips_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_learned_perceptual_distance("cpu", tmp_path / "absent.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="cannot be read"):
        load_learned_perceptual_distance("cpu", tmp_path / "damaged.safetensors")
