"""The library's door: what may be passed in, what comes back, and the same bytes as the command."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import dladiff
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.photo_inputs import OrderedPhotos, photos_of_tensor
from dladiff.settings_in_use import unread_settings


def short(preset: str) -> dladiff.MethodSettings:
    """A method of few steps, its models those of the preset."""
    method = dladiff.preset_settings(preset)  # type: ignore[arg-type]  # the parameter's values
    few = {
        "loop.num_steps": 3,
        "loop.finishing_steps": 1,
        "loop.step_size_levels": 3,
    }
    unread = unread_settings(method)
    return method.changed(*(f"{path}={n}" for path, n in few.items() if path not in unread))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def protector(cache: Path) -> dladiff.Protector:
    return dladiff.Protector(short("zero-shot"), cache_dir=cache)


@pytest.fixture(scope="module")
def face(astronaut: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(astronaut[:256, 110:334])


def test_arrays_images_and_tensors_of_one_photo_give_the_same_pixels(
    protector: dladiff.Protector, face: np.ndarray
) -> None:
    (from_array,) = protector(face)
    (from_picture,) = protector(Image.fromarray(face))
    tensor = torch.from_numpy(face).permute(2, 0, 1)[None].double() / 255
    from_tensor = protector(tensor)
    assert 0 < np.abs(from_array.astype(int) - face).max() <= 11
    np.testing.assert_array_equal(from_array, from_picture)
    assert (from_tensor.dtype, from_tensor.shape) == (torch.float64, tensor.shape)
    pixels = (from_tensor[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    np.testing.assert_array_equal(pixels, from_array)


@pytest.mark.parametrize("mode", ["turned", "grey_profile"])
def test_a_file_gives_the_pixels_and_the_noise_of_the_command(
    protector: dladiff.Protector, face: np.ndarray, tmp_path: Path, mode: str, cache: Path
) -> None:
    from dladiff.protect import protect_photo_set
    from pipeline.images.files import PhotoLimits
    from pipeline.records import SourcePhoto
    from pipeline.worker.compute_set import decode_group, protect_group
    from pipeline.worker.set_inputs import PhotoGroup, WholePhoto

    first, second = tmp_path / "b.jpg", tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6 if mode == "turned" else 1
    Image.fromarray(face).rotate(90 if mode == "turned" else 0, expand=True).save(first, exif=exif)
    other = Image.fromarray(face)
    (other.convert("L") if mode == "grey_profile" else other).save(second)
    files = [first, second, first]
    wholes = []
    for index, file in enumerate(files):
        content = file.read_bytes()
        source = SourcePhoto("ann", str(file), f"{index}.png", 1, "")
        digest = hashlib.sha256(content).hexdigest()
        wholes.append(WholePhoto(source, index, content, digest, 224 * 256))
    decoded = decode_group(PhotoGroup(wholes, []), PhotoLimits(), lambda: None)
    by_command = protect_group(
        decoded,
        lambda photos, references, method, report: protect_photo_set(
            photos, references, protector.models, method, report
        ),
        protector.settings,
        lambda *_: None,
    )
    expected = {one.photo.index: one.result.image for one in by_command.photos}
    one, copy = expected[0], expected[2]
    assert one is not None
    assert copy is not None
    for index, image in enumerate(protector(files)):
        np.testing.assert_array_equal(image, expected[index])
    assert not np.array_equal(one, copy)  # copies are photos of their own


def test_the_order_given_decides_nothing_and_is_kept(
    protector: dladiff.Protector, face: np.ndarray, astronaut: np.ndarray
) -> None:
    larger = astronaut[:300, 100:400]
    one, other = protector([face, larger])
    again_other, again_one = protector([larger, face])
    np.testing.assert_array_equal(one, again_one)
    np.testing.assert_array_equal(other, again_other)
    assert one.shape == face.shape


def test_a_photo_that_cannot_be_protected_comes_back_with_a_warning(
    protector: dladiff.Protector,
) -> None:
    wall = np.full((90, 120, 3), 130, np.uint8)
    with pytest.warns(UserWarning, match=r"photos \[0\] \(no_face\)"):
        (back,) = protector([wall])
    np.testing.assert_array_equal(back, wall)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.full((1, 3, 40, 40), 2.0), r"\[0, 1\], got \[2, 2\]"),
        (torch.zeros(3, 40, 40), r"float tensor \(N, 3, height, width\)"),
        (torch.zeros(1, 3, 40, 40, dtype=torch.uint8), "float tensor"),
        (torch.full((1, 3, 40, 40), torch.nan), "got"),
        (np.zeros((40, 40, 3), np.float32), "uint8 array"),
        (np.zeros((40, 40), np.uint8), "uint8 array"),
    ],
)
def test_a_wrong_range_shape_or_kind_is_refused(
    protector: dladiff.Protector, images: Tensor | np.ndarray, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        protector(images)


def test_what_is_no_picture_is_refused_by_name(
    protector: dladiff.Protector, tmp_path: Path
) -> None:
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"note\.jpg: no readable picture"):
        protector([tmp_path / "note.jpg"])
    with pytest.raises(FileNotFoundError):
        protector([tmp_path / "missing.jpg"])


def test_a_tensor_is_rounded_to_levels_and_keyed_by_its_pixels() -> None:
    levels = torch.randint(0, 256, (2, 3, 33, 34), generator=torch.Generator().manual_seed(0))
    images = levels / 255
    one, other = photos_of_tensor(images)
    assert one.key != other.key
    assert one.key == photos_of_tensor(images + 1e-4 * (images < 0.5))[0].key
    ordered = OrderedPhotos.of([one, other, one])
    assert len({photo.key for photo in ordered.photos}) == 3
    assert ordered.as_given(ordered.places) == [0, 1, 2]


class OwnRecogniser(nn.Module):
    """Any network from crops to vectors; a random convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 32, 16, stride=8)
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        embeds: Tensor = self.convolution(images - 0.5).flatten(1)
        return embeds


def test_own_recognisers_work_in_the_losses_or_only_measure(face: np.ndarray, cache: Path) -> None:
    networks = OwnRecogniser(), OwnRecogniser()
    protector = dladiff.Protector(
        short("zero-shot"),
        recognisers=[
            IdentityEncoder("mine", networks[0]),
            IdentityEncoder("judge", networks[1], held_out=True),
        ],
        cache_dir=cache,
    )
    (found,) = protector.protect(face).photos
    by_name = {cosine.encoder: cosine for cosine in found.identity_cosines}
    assert list(by_name) == ["sface", "dlib", "mine", "judge"]
    assert by_name["judge"].held_out
    assert networks[0].rows > networks[1].rows > 0


def test_own_autoencoder_and_own_loss_change_what_the_loop_does(
    face: np.ndarray, cache: Path
) -> None:
    plain = dladiff.Protector(short("balanced"), cache_dir=cache)
    seen: list[Tensor] = []

    def brighter(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.mean()

    def protected(**own: Any) -> np.ndarray:
        models = replace(plain.models, **own)  # the same loaded models: loading takes seconds
        with_own = object.__new__(dladiff.Protector)
        with_own.settings, with_own.models = plain.settings, models
        return with_own(face)[0].astype(int)

    (unchanged,) = plain(face)
    bright = protected(losses=(dladiff.OwnLoss(brighter, weight=100.0),))
    assert len(seen) == 2  # every step but the one on the photo
    assert all(images.shape == (1, 3, 256, 224) for images in seen)
    assert bright.mean() > unchanged.mean() + 0.1
    (own,) = plain.models.autoencoders
    other = replace(own, resolution=own.resolution // 2)
    assert not np.array_equal(protected(autoencoders=[own, other]), unchanged)


def test_what_nothing_would_read_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="'zero-shot' lacks"):
        dladiff.Protector("zero-shot", losses=[dladiff.OwnLoss(torch.mean)])
    with pytest.raises(ValueError, match="taken: sface"):
        dladiff.Protector("balanced", recognisers=[IdentityEncoder("sface", OwnRecogniser())])


def test_a_call_leaves_the_callers_number_of_threads(
    protector: dladiff.Protector, face: np.ndarray
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        protector(face)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
