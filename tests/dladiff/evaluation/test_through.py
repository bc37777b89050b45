"""One pass through an autoencoder: TAEF2's files, diffusers' format, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dladiff.config import AutoencoderSettings
from dladiff.diffusion.checkpoint import load_autoencoder
from dladiff.errors import ModelError
from dladiff.evaluation.distilled_autoencoder import FILES, DistilledAutoencoder
from dladiff.evaluation.through import load_round_trip, scaled
from dladiff.image_values import image_to_tensor, tensor_to_image
from tests.tiny_models import write_checkpoint


def photo_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def distilled(tmp_path: Path) -> tuple[Path, DistilledAutoencoder]:
    torch.manual_seed(0)
    network = DistilledAutoencoder().eval()
    for name, part in zip(FILES, (network.encoder, network.decoder), strict=True):
        save_file(part.state_dict(), tmp_path / name)
    return tmp_path, network


def test_the_distilled_autoencoder_has_the_published_names_and_sizes() -> None:
    network = DistilledAutoencoder()
    encoder, decoder = network.encoder.state_dict(), network.decoder.state_dict()
    assert encoder["11.pool.1.weight"].shape == (256,)
    assert encoder["14.weight"].shape == (32, 64, 3, 3)
    assert decoder["5.pool.3.weight"].shape == (64, 256, 1, 1)
    assert decoder["19.weight"].shape == (3, 64, 3, 3)
    assert network.encoder(torch.zeros(1, 3, 64, 48)).shape == (1, 32, 8, 6)


def test_a_photo_of_any_size_goes_through_and_keeps_it(
    distilled: tuple[Path, DistilledAutoencoder],
) -> None:
    folder, network = distilled
    round_trip = load_round_trip(folder, "cpu")
    assert round_trip(photo_of(33, 50)).shape == (33, 50, 3)
    photo = photo_of(32, 48)
    with torch.no_grad():
        expected = tensor_to_image(network(image_to_tensor(photo)))
    np.testing.assert_array_equal(round_trip(photo), expected)


def test_a_folder_in_diffusers_format_goes_through_its_vae(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    vae = load_autoencoder(AutoencoderSettings(checkpoint=str(folder)), "cpu")
    photo = photo_of(32, 32)
    with torch.no_grad():
        expected = tensor_to_image(vae.decode(vae.encode(image_to_tensor(photo))))
    np.testing.assert_array_equal(load_round_trip(folder, "cpu")(photo), expected)


def test_a_folder_without_an_autoencoder_and_damaged_files_are_refused(
    tmp_path: Path, distilled: tuple[Path, DistilledAutoencoder]
) -> None:
    with pytest.raises(ModelError, match="no autoencoder: expected"):
        load_round_trip(tmp_path / "nothing", "cpu")
    folder, network = distilled
    save_file(network.decoder.state_dict(), folder / "encoder.safetensors")
    with pytest.raises(ModelError, match="no weights of TAEF2"):
        load_round_trip(folder, "cpu")


def test_the_short_side_becomes_what_is_asked() -> None:
    assert scaled(photo_of(30, 60), 15).shape == (15, 30, 3)
    assert scaled(photo_of(30, 60), 45).shape == (45, 90, 3)
    assert scaled(photo_of(30, 60), None).shape == (30, 60, 3)
