"""Steps in proportion, and the decay of what the eye sees best."""

import pytest
import torch

from dladiff.image_values import Images
from dladiff.projected_gradient import GradientAscent
from dladiff.visibility import band_allowances, fade_visible_bands, weigh_bands


def grating(period_px: float, side: int = 64) -> Images:
    """A grey grating of a hundredth's amplitude."""
    wave = torch.sin(torch.arange(side) * (2 * torch.pi / period_px)) * 0.01
    return wave.expand(1, 3, side, side).contiguous()


def kept(change: Images, strength: float = 1.0) -> float:
    share = torch.full((1, 1, *change.shape[-2:]), 0.5)
    faded = fade_visible_bands(change, share, strength)
    return float(faded.norm() / change.norm())


def test_creases_fade_faster_than_fine_texture() -> None:
    assert kept(grating(8)) < kept(grating(2.5)) - 0.02
    assert kept(grating(2.5)) > 0.97


def test_blotches_of_colour_fade_faster_than_the_same_in_grey() -> None:
    colour = grating(64) * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert kept(colour) < kept(grating(64))


def test_smooth_places_lose_more_than_textured_ones() -> None:
    change, whole = grating(8), torch.ones(1, 1, 64, 64)
    smooth = fade_visible_bands(change, 0.35 * whole, 1.0).norm()
    textured = fade_visible_bands(change, whole, 1.0).norm()
    assert smooth < textured


def test_no_strength_changes_nothing() -> None:
    change = torch.rand(1, 3, 24, 40) * 0.1
    whole = torch.ones(1, 1, 24, 40)
    faded = fade_visible_bands(change, whole, 0.0)
    torch.testing.assert_close(faded, change, atol=1e-5, rtol=0)


def test_bands_that_show_less_may_change_more() -> None:
    fine, coarse = grating(2.5), grating(32)
    equal = band_allowances(fine + coarse, fine + coarse)
    torch.testing.assert_close(equal, torch.ones_like(equal))
    allowances = band_allowances(fine + coarse, fine + 10 * coarse)
    assert allowances.log().sum().item() == pytest.approx(0, abs=1e-3)
    weighted = weigh_bands(fine + coarse, allowances, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    of_fine, of_coarse = (float((weighted * one).sum() / one.norm()) for one in (fine, coarse))
    assert of_fine > 4 * of_coarse > 0
    before, after = (float(step.abs().sum()) for step in (fine + coarse, weighted))
    assert after == pytest.approx(before, rel=1e-4)


def test_steps_where_nobody_looks_stay_as_they_are() -> None:
    step = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    restraint = step.clone()
    restraint[..., 16:] = 0
    is_seen = restraint.abs().amax(dim=1, keepdim=True) > 0
    weighted = weigh_bands(step, band_allowances(step * 0.1 + restraint, restraint), is_seen)
    assert torch.equal(weighted[..., 16:], step[..., 16:])
    assert not torch.allclose(weighted[..., :16], step[..., :16])


def ascent_in_proportion(epsilon: float) -> GradientAscent:
    clean = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ascent = GradientAscent.begin(clean, epsilon, 0.0, torch.Generator().manual_seed(1))
    ascent.restraint = torch.zeros_like(clean)
    return ascent


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_in_proportion_raise_the_loss_within_the_budget(momentum: float) -> None:
    ascent = ascent_in_proportion(4 / 255)
    gradient = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for _ in range(20):
        ascent.step(gradient, 0.5 / 255, momentum)
    assert float((ascent.perturbation * gradient).sum()) > 0
    assert float(ascent.perturbation.abs().max()) <= 4 / 255 + 1e-6
    assert float(ascent.images.min()) >= 0
    assert float(ascent.images.max()) <= 1


def test_a_larger_gradient_moves_further_but_at_most_three_ordinary_steps() -> None:
    ascent = ascent_in_proportion(1.0)
    ascent.clean = torch.full_like(ascent.clean, 0.5)
    gradient = torch.ones(1, 3, 32, 32)
    gradient[..., :4, :4] = 100.0
    gradient[..., 8:16, :] = 0.1
    ascent.step(gradient, 0.01)
    assert float(ascent.perturbation.max()) == pytest.approx(0.03, rel=1e-2)
    assert float(ascent.perturbation[..., 10, 10].mean()) < 0.1 * 0.03


def test_a_content_face_keeps_its_change() -> None:
    ascent = ascent_in_proportion(0.1)
    ascent.perturbation = grating(8, 32)
    before = (ascent.images).clone()
    ascent.step(torch.zeros(1, 3, 32, 32), 0.01, may_vanish=True)
    assert torch.allclose(ascent.images, before.clamp(0, 1), atol=1e-6)
