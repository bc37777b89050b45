"""Budget maps: never above the stated levels, less where the eye would see it."""

import pytest
import torch

from dladiff.budget import budget_map, masking_share

FLAT = 1.0
SPARING = 0.4


def half_textured() -> torch.Tensor:
    """Bright and smooth on the left, strong noise on the right."""
    images = torch.full((1, 3, 40, 80), 0.7)
    noise = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) - 0.5
    images[..., 40:] += 0.5 * noise
    return images


def test_a_flat_map_is_the_budgets_themselves_blended_by_the_mask() -> None:
    mask = torch.zeros(1, 1, 40, 80)
    mask[..., 10:30, 10:30], mask[..., 12, 12] = 1.0, 0.5
    budget = budget_map(half_textured(), 4.0, 18.0, [mask, mask * 0.1], FLAT)
    assert isinstance(budget, torch.Tensor)
    levels = budget * 255
    assert float(levels[..., 0, 0]) == pytest.approx(4.0)
    assert float(levels[..., 20, 20]) == pytest.approx(18.0)
    assert float(levels[..., 12, 12]) == pytest.approx(11.0)


def test_smooth_bright_places_get_the_floor_and_texture_the_whole() -> None:
    share = masking_share(half_textured(), SPARING)
    assert float(share[..., :, :20].max()) < 0.45
    assert float(share[..., :, 60:].min()) > 0.95
    assert float(share.min()) >= 0.4
    assert float(share.max()) <= 1.0


def test_dark_places_hide_more_than_bright_ones() -> None:
    grey = [masking_share(torch.full((1, 3, 16, 16), v), SPARING).mean() for v in (0.02, 0.2, 0.7)]
    assert grey[0] > grey[1] > grey[2]
    assert float(grey[2]) == pytest.approx(0.4, abs=1e-3)
