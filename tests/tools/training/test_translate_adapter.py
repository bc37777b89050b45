"""A translated adapter hears from another recogniser what the first one would have told it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from dladiff.config import ModelSettings
from dladiff.diffusion.checkpoint import load_diffusion_model
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.evaluation.attacks.zero_shot import FaceAdapter, begin_zero_shot
from tests.tiny_adapters import write_adapter
from tests.tiny_models import write_checkpoint
from tools.training.translate_adapter import (
    Translation,
    fit_translation,
    likeness_to_own_and_others,
    main,
    translated_adapter,
)

DIM = 16


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1)


def rotation() -> torch.Tensor:
    turned: torch.Tensor = torch.linalg.qr(unit(DIM, DIM, seed=1)).Q
    return turned


def test_recognisers_that_see_alike_up_to_a_rotation_are_translated_exactly() -> None:
    target = unit(200, DIM)
    source = target @ rotation()
    translation = fit_translation(source[:150], target[:150], penalty=1e-8)
    own, other = likeness_to_own_and_others(translation(source[150:]), target[150:])
    assert own == pytest.approx(1, abs=1e-3)
    assert abs(other) < 0.2


def test_translations_have_unit_mean_length_though_ridge_shrinks() -> None:
    target, noise = unit(400, DIM), 0.5 * unit(400, DIM, seed=3)
    source = functional.normalize(target + noise, dim=1)
    answers = fit_translation(source, target, penalty=1e-2)(source)
    assert float(answers.norm(dim=1).mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("width", [DIM, 2 * DIM, 3 * DIM])
def test_the_file_says_of_an_embedding_what_the_first_says_of_its_translation(
    sface: IdentityEncoder, tmp_path: Path, width: int
) -> None:
    folder = str(write_checkpoint(tmp_path / "checkpoint"))
    diffusion = load_diffusion_model(ModelSettings(checkpoint=folder), "cpu")
    first = load_file(write_adapter(tmp_path / "first.safetensors", diffusion.unet, DIM))
    weight, source = unit(DIM, width, seed=5), unit(3, width, seed=6)
    translation = Translation(weight, unit(1, DIM, seed=7)[0])
    save_file(translated_adapter(first, translation), tmp_path / "second.safetensors")
    tokens = []
    for name, told in (("first", translation(source)), ("second", source)):
        adapter = FaceAdapter(tmp_path / f"{name}.safetensors", sface)
        model = begin_zero_shot(diffusion, adapter)
        (projection,) = model.unet.encoder_hid_proj.image_projection_layers
        tokens.append(projection(told))
    torch.testing.assert_close(*tokens, rtol=1e-3, atol=1e-4)


def test_an_unknown_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nobody", str(tmp_path / "out"), "--data", str(tmp_path)]) == 1
    assert "expected [family/]name=model.onnx" in capsys.readouterr().err
