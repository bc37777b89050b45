"""Each way through the method on a CUDA device: it reaches what the CPU reaches, twice the same."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import dladiff
from dladiff.encoders.identity_encoders import load_identity_encoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def repeatable_kernels() -> Iterator[None]:
    deterministic, tf32 = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = deterministic, tf32


METHODS = {
    "layer 2": dladiff.preset_settings("zero-shot").changed("loop.num_steps=8"),
    "one loop": dladiff.preset_settings("fast").changed(
        "loop.num_steps=9", "loop.finishing_steps=4"
    ),
    "two layers": dladiff.preset_settings("paper").changed(
        "surrogates.adaptation=lora",
        "surrogates.num_epochs=2",
        "surrogates.step0_steps=4",
        "loop.num_steps=8",
    ),
}
"""Each way through the method, with as few steps as show a change."""


def protect(
    method: dladiff.MethodSettings, photo: np.ndarray, device: str
) -> tuple[np.ndarray, dladiff.PhotoResult]:
    models = dladiff.load_models(method, device)
    (result,) = dladiff.protect_photo_set(
        [dladiff.Photo("astronaut", photo)], [], models, method
    ).photos
    assert result.image is not None
    return result.image, result


def test_an_encoder_embeds_on_the_device_as_on_the_cpu() -> None:
    settings = METHODS["layer 2"].recognisers[0]
    crops = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    on_cpu = load_identity_encoder(settings, "cpu").embed(crops)
    on_device = load_identity_encoder(settings, "cuda").embed(crops.cuda()).cpu()
    assert float((on_cpu * on_device).sum(dim=1).min()) > 0.9999


@pytest.mark.parametrize("way", METHODS)
def test_the_device_reaches_what_the_cpu_reaches(astronaut: np.ndarray, way: str) -> None:
    photo, method = astronaut[:320, 80:400], METHODS[way]
    _, on_cpu = protect(method, photo, "cpu")
    _, on_device = protect(method, photo, "cuda")
    assert on_device.status == on_cpu.status == "protected"
    assert on_device.psnr_db == pytest.approx(on_cpu.psnr_db, abs=1.0)
    for cpu, device in zip(on_cpu.identity_cosines, on_device.identity_cosines, strict=True):
        assert device.before == pytest.approx(cpu.before, abs=0.01)
        assert device.after == pytest.approx(cpu.after, abs=0.15)


@pytest.mark.parametrize("way", METHODS)
def test_the_same_seed_gives_the_same_bytes_on_the_device(astronaut: np.ndarray, way: str) -> None:
    photo, method = astronaut[:320, 80:400], METHODS[way]
    first, _ = protect(method, photo, "cuda")
    second, _ = protect(method, photo, "cuda")
    assert np.array_equal(first, second)
