"""What reaches the attacker after platforms and tricks."""

import io

import numpy as np
import PIL.Image
import pytest

from dladiff.evaluation.handlings import NOISY_UPSCALE_SIGMA_LEVELS, handle_photos, smoothed
from dladiff.evaluation.settings import HANDLINGS, PURIFICATIONS
from tests.sample_photos import photo_image

PHOTOS = [photo_image(64, 48, seed) for seed in range(5)]
CLEAN = [photo_image(64, 48, seed + 100) for seed in range(5)]


@pytest.mark.parametrize("name", HANDLINGS)
def test_every_handling_gives_as_many_photos_and_leaves_its_input_alone(name: str) -> None:
    before = [photo.copy() for photo in PHOTOS]
    handled = handle_photos(name, PHOTOS, CLEAN, remover=np.flipud)  # type: ignore[arg-type]
    assert len(handled) == len(PHOTOS)
    assert all(np.array_equal(*pair) for pair in zip(PHOTOS, before, strict=True))
    changes = not np.array_equal(handled[0], PHOTOS[0])
    assert changes == (name not in ("none", *PURIFICATIONS))


def test_jpeg_is_pillows_round_trip() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PHOTOS[0]).save(buffer, "JPEG", quality=75)
    expected = np.asarray(PIL.Image.open(buffer))
    assert np.array_equal(handle_photos("jpeg75", PHOTOS, CLEAN)[0], expected)


def test_half_size_photos_stay_small() -> None:
    assert handle_photos("half", PHOTOS, CLEAN)[0].shape == (32, 24, 3)


def test_a_quarter_of_the_mix_is_clean() -> None:
    mixed = handle_photos("clean_mix", PHOTOS[:4], CLEAN[:4])
    sources = [np.array_equal(photo, clean) for photo, clean in zip(mixed, CLEAN, strict=False)]
    assert sources == [True, False, False, False]


def test_noise_has_its_stated_strength_and_is_another_on_each_photo() -> None:
    grey = [np.full((200, 200, 3), 128, np.uint8)] * 2
    first, second = handle_photos("noise", grey, grey)
    assert np.std(first.astype(float)) == pytest.approx(4, rel=0.03)
    assert not np.array_equal(first, second)


def test_noisy_upscaling_keeps_the_size_repeats_itself_and_noises_each_photo_anew() -> None:
    grey = [np.full((64, 50, 3), 128, np.uint8)] * 2
    first, second = handle_photos("noisy_upscale", grey, grey)
    assert first.shape == grey[0].shape
    assert not np.array_equal(first, second)
    assert np.array_equal(handle_photos("noisy_upscale", grey, grey)[1], second)
    assert not np.array_equal(handle_photos("noisy_upscale", grey, grey, seed=1)[1], second)
    # Lanczos averages about four noisy pixels of the enlarged photo into one.
    assert np.std(first.astype(float)) == pytest.approx(NOISY_UPSCALE_SIGMA_LEVELS / 2, rel=0.25)


def test_unprotecting_does_what_the_remover_does_and_needs_one() -> None:
    handled = handle_photos("unprotect", PHOTOS, CLEAN, remover=np.fliplr)
    assert np.array_equal(handled[2], PHOTOS[2][:, ::-1])
    with pytest.raises(ValueError, match="needs a remover"):
        handle_photos("unprotect", PHOTOS, CLEAN)


def test_smoothing_removes_a_checkerboard_and_keeps_a_shape() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 24 + 116
    fine = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    shape = np.full((64, 64, 3), 60, np.uint8)
    shape[16:48, 16:48] = 190
    assert np.std(smoothed(fine).astype(float)) < 0.5 * np.std(fine.astype(float))
    assert smoothed(shape)[32, 32].mean() - smoothed(shape)[4, 4].mean() > 120
