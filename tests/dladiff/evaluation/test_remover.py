"""A remover's net and file: it starts as the identity, tiles change nothing, other files do not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dladiff.errors import ModelError
from dladiff.evaluation import remover as remover_module
from dladiff.evaluation.remover import (
    Remover,
    load_remover,
    mean_change_levels,
    save_remover,
)
from tests.sample_photos import photo_image


@pytest.fixture
def lively() -> Remover:
    """A remover that changes photos by several levels, as a trained one does."""
    torch.manual_seed(0)
    remover = Remover().eval()
    nn.init.normal_(remover.tail.weight, std=0.01)
    return remover


def test_an_untrained_remover_changes_nothing() -> None:
    photo = photo_image(50, 67)
    assert np.array_equal(Remover().remove(photo), photo)


def test_it_has_two_million_weights() -> None:
    assert sum(value.numel() for value in Remover().parameters()) == pytest.approx(2e6, rel=0.1)


def test_photos_done_in_tiles_come_out_as_done_whole(
    lively: Remover, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = photo_image(301, 420)
    whole = lively.remove(photo)
    assert mean_change_levels(photo, whole) > 1
    monkeypatch.setattr(remover_module, "_MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(remover_module, "_TILE_SIDE", 128)
    assert np.abs(lively.remove(photo).astype(int) - whole).max() <= 1


def test_no_pixel_depends_on_what_lies_beyond_the_margin(lively: Remover) -> None:
    images = torch.rand(1, 3, 320, 320, requires_grad=True)
    lively(images)[0, :, 152:168, 152:168].sum().backward()  # two cells of the deepest level
    assert images.grad is not None
    rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert 152 - int(rows.min()) <= remover_module._TILE_MARGIN
    assert int(rows.max()) - 167 <= remover_module._TILE_MARGIN


def test_a_saved_remover_does_the_same(lively: Remover, tmp_path: Path) -> None:
    save_remover(lively, tmp_path / "remover.safetensors")
    loaded = load_remover(tmp_path / "remover.safetensors", "cpu")
    photo = photo_image()
    assert np.array_equal(loaded.remove(photo), lively.remove(photo))
    assert [path.name for path in tmp_path.iterdir()] == ["remover.safetensors"]


def test_what_is_no_remover_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(ModelError, match=r"no remover at .*other.*tools.training.remover"):
        load_remover(path, "cpu")
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ModelError, match="holds no remover, not dladiff-remover-1: train one"):
        load_remover(path, "cpu")
    save_remover(nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="no weights of a remover"):
        load_remover(path, "cpu")
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="no weights of a remover"):
        load_remover(path, "cpu")
