"""A tiny checkpoint and a few tiny photos, shared by the tests of layer 1."""

from pathlib import Path

import pytest

from dladiff.config import MethodSettings, ModelSettings, preset_settings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.photo_at_work import PhotoAtWork
from tests.layer1_scenes import a_face, random_photo
from tests.tiny_models import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny epsilon checkpoint in diffusers format."""
    return write_checkpoint(tmp_path_factory.mktemp("epsilon"))


@pytest.fixture(scope="session")
def velocity_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with velocity prediction and an AutoencoderTiny."""
    folder = tmp_path_factory.mktemp("velocity")
    return write_checkpoint(folder, prediction_type="v_prediction", vae="tiny")


@pytest.fixture(scope="session")
def diffusion(checkpoint: Path) -> DiffusionModel:
    return load_diffusion_model(ModelSettings(checkpoint=str(checkpoint)), "cpu")


@pytest.fixture(scope="session")
def velocity_diffusion(velocity_checkpoint: Path) -> DiffusionModel:
    return load_diffusion_model(ModelSettings(checkpoint=str(velocity_checkpoint)), "cpu")


@pytest.fixture
def photos() -> list[PhotoAtWork]:
    """Landscape with a face, portrait of odd size without one, square with a face."""
    return [
        PhotoAtWork.of_images("landscape", random_photo(1, 40, 57), [a_face(12.0, 8.0, 22.0)]),
        PhotoAtWork.of_images("portrait", random_photo(2, 61, 39), []),
        PhotoAtWork.of_images("square", random_photo(3, 48, 48), [a_face(10.0, 12.0, 24.0)]),
    ]


@pytest.fixture(scope="session")
def settings() -> MethodSettings:
    """The paper's steps, few of them, a high learning rate and no handling: losses move visibly."""
    return preset_settings("paper").changed(
        "surrogates={num_epochs: 2, attention_steps: 2, denoising_steps: 2, surrogate_steps: 2, "
        "timesteps_per_step: 2, lora_rank: 4, step0_steps: 8, learning_rate: 1.0e-2}",
        "paper={crop: false, timestep_choice: stratified, include_largest_maps: false, "
        "drop_bos: true, use_views: true}",
    )
