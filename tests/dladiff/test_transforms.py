"""Handling: against Pillow and SciPy, differentiable, drawn alike from the same key."""

import io
from collections import Counter

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import torch

from dladiff.image_values import Image, image_to_tensor
from dladiff.randomness import keyed_generator
from dladiff.transforms import (
    PhotometricTransform,
    add_noise,
    draw_photometric,
    gaussian_blur,
    jpeg,
    resize_antialiased,
)


@pytest.mark.parametrize("quality", [40, 60, 75, 90, 95])
@pytest.mark.parametrize("size", [(512, 512), (251, 173), (100, 99)])
def test_jpeg_is_within_half_a_level_of_pillows_on_average(
    astronaut: Image, quality: int, size: tuple[int, int]
) -> None:
    photo = np.ascontiguousarray(astronaut[: size[0], 100 : 100 + size[1]])
    buffer = io.BytesIO()
    PIL.Image.fromarray(photo).save(buffer, format="JPEG", quality=quality)
    expected = np.asarray(PIL.Image.open(buffer)).astype(np.float32)
    ours = jpeg(image_to_tensor(photo), quality)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - expected).mean() < 0.5
    assert np.abs(photo - expected).mean() > 1.0


def test_a_crop_at_the_photos_blocks_has_the_photos_jpeg(astronaut: Image) -> None:
    photo = image_to_tensor(astronaut)
    whole = jpeg(photo, 75)[..., 96:224, 64:192]
    part = jpeg(photo[..., 96:224, 64:192], 75)
    inside = (..., slice(16, -16), slice(16, -16))
    torch.testing.assert_close(part[inside], whole[inside])


def test_resizing_agrees_with_pillow(astronaut: Image) -> None:
    small = PIL.Image.fromarray(astronaut).resize((200, 131), PIL.Image.Resampling.BILINEAR)
    ours = resize_antialiased(image_to_tensor(astronaut), 131, 200) * 255
    difference = ours[0].permute(1, 2, 0).numpy() - np.asarray(small)
    assert np.abs(difference).max() < 1.5


@pytest.mark.parametrize("sigma", [0.3, 1.2])
def test_blur_agrees_with_scipy(astronaut: Image, sigma: float) -> None:
    photo = image_to_tensor(astronaut[:64, :48])
    expected = scipy.ndimage.gaussian_filter(
        photo[0, 1].numpy(), sigma, mode="nearest", radius=max(1, int(np.ceil(3 * sigma)))
    )
    np.testing.assert_allclose(gaussian_blur(photo, sigma)[0, 1].numpy(), expected, atol=1e-5)


def test_noise_has_the_stated_strength_and_repeats() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    noisy = add_noise(grey, 2 / 255, seed=5)
    assert float((noisy - grey).std()) == pytest.approx(2 / 255, rel=0.05)
    assert torch.equal(noisy, add_noise(grey, 2 / 255, seed=5))
    assert not torch.equal(noisy, add_noise(grey, 2 / 255, seed=6))


@pytest.mark.parametrize(
    "transform",
    [
        PhotometricTransform(),
        PhotometricTransform(jpeg_quality=60),
        PhotometricTransform(half_size=True),
        PhotometricTransform(half_size=True, jpeg_quality=75),
        PhotometricTransform(blur_sigma_px=1.0),
        PhotometricTransform(noise_sigma_levels=2.0),
    ],
)
def test_transforms_keep_size_and_range_and_pass_the_gradient_to_the_pixels(
    astronaut: Image, transform: PhotometricTransform
) -> None:
    photo = image_to_tensor(astronaut[100:163, 200:251]).requires_grad_(True)
    handled = transform.apply(photo)
    assert handled.shape == photo.shape
    assert float(handled.detach().min()) >= 0
    assert float(handled.detach().max()) <= 1
    (gradient,) = torch.autograd.grad(handled.square().mean(), photo)
    assert torch.isfinite(gradient).all()
    assert float((gradient != 0).float().mean()) > 0.9


def test_draws_have_the_configured_shares_and_ranges() -> None:
    draws = [draw_photometric(True, keyed_generator(0, "draw", i)) for i in range(2000)]
    kinds = Counter(
        "both"
        if draw.half_size and draw.jpeg_quality
        else "none"
        if draw == PhotometricTransform()
        else "one"
        for draw in draws
    )
    assert kinds["none"] / 2000 == pytest.approx(0.30, abs=0.04)
    assert kinds["both"] / 2000 == pytest.approx(0.25, abs=0.04)
    qualities = [draw.jpeg_quality for draw in draws if draw.jpeg_quality is not None]
    assert min(qualities) >= 60
    assert max(qualities) <= 95
    assert len(set(qualities)) > 30


def test_the_same_key_draws_the_same_and_disabled_draws_nothing() -> None:
    first, second = (draw_photometric(True, keyed_generator(3, "a")) for _ in range(2))
    assert first == second
    draws = {draw_photometric(False, keyed_generator(0, i)) for i in range(20)}
    assert draws == {PhotometricTransform()}
