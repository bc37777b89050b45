"""Group photos: who is found, who is left out, and that it is said."""

import weakref
from collections.abc import Iterator
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

from dladiff.budget import budget_map
from dladiff.config import FaceDetectorSettings, MethodSettings, preset_settings
from dladiff.encoders.identity_encoders import FACES_PER_PASS, IdentityEncoder
from dladiff.face_detection import FaceDetector, FoundFaces, load_face_detector
from dladiff.identities import clean_identities
from dladiff.image_values import Image
from dladiff.layer2 import photo_likeness
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.models import ProtectionModels
from dladiff.photo_at_work import PhotoAtWork
from dladiff.protect import protect_photo_set
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, LeftOutCause, Photo
from pipeline.manifest_row import LEFT_OUT_CAUSES

NUM_PEOPLE, COLUMNS = 60, 10


def group_photo(portrait: Image, width: int, height: int, face_px: float) -> Image:
    """Sixty people in rows, with faces of this size; the same one, mirrored and not."""
    found = load_face_detector(FaceDetectorSettings()).detect(portrait)[0]
    scale = face_px / min(found.box[2] - found.box[0], found.box[3] - found.box[1])
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    photo = np.full((height, width, 3), (120, 130, 110), np.uint8)
    for number in range(NUM_PEOPLE):
        row, column = divmod(number, COLUMNS)
        left = round((column + 0.5) * width / COLUMNS - small.shape[1] / 2)
        top = round((row + 0.5) * height / (NUM_PEOPLE // COLUMNS) - small.shape[0] / 2)
        person = small[:, ::-1] if number % 2 else small
        photo[top : top + small.shape[0], left : left + small.shape[1]] = person
    return photo


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> Image:
    return np.ascontiguousarray(astronaut[20:256, 110:334])


def find(photo: Image, **settings: object) -> FoundFaces:
    return load_face_detector(FaceDetectorSettings.model_validate(settings)).find(photo)


@pytest.mark.parametrize("face_px", [32, 40, 60, 120])
def test_sixty_people_in_a_photo_of_12_megapixels_are_all_found_once(
    portrait: Image, face_px: float
) -> None:
    found = find(group_photo(portrait, 4000, 3000, face_px))
    assert (len(found.faces), found.left_out) == (NUM_PEOPLE, {})
    centres = {
        (int((face.box[0] + face.box[2]) / 800), int((face.box[1] + face.box[3]) / 1000))
        for face in found.faces
    }
    assert len(centres) == NUM_PEOPLE  # one in each place


def test_the_smallest_face_is_promised_in_pixels_of_the_photo_also_at_48_megapixels(
    portrait: Image,
) -> None:
    found = find(group_photo(portrait, 8000, 6000, 30))
    assert len(found.faces) == NUM_PEOPLE
    for face in found.faces:
        assert 24 <= min(face.box[2] - face.box[0], face.box[3] - face.box[1]) < 36


def test_faces_of_tiles_have_their_landmarks_where_they_are(portrait: Image) -> None:
    photo = group_photo(portrait, 4000, 3000, 40)
    for face in find(photo).faces[::7]:
        left, top, right, bottom = (round(edge) for edge in face.box)
        part = np.ascontiguousarray(photo[top - 30 : bottom + 30, left - 30 : right + 30])
        (alone,) = find(part).faces
        moved = alone.landmarks + np.array([left - 30, top - 30], np.float32)
        assert np.abs(moved - face.landmarks).max() < 4


def test_what_limits_leave_out_is_counted_by_cause(portrait: Image) -> None:
    photo = group_photo(portrait, 4000, 3000, 40)
    few = find(photo, max_faces=16)
    assert (len(few.faces), few.left_out) == (16, {"too_many": 44})
    large = find(photo, min_size_px=60)
    assert large.faces == []
    assert large.left_out["too_small"] >= NUM_PEOPLE - 4  # smaller ones are less surely seen
    unsure = find(portrait, min_score=0.97)
    assert (unsure.faces, unsure.left_out) == ([], {"low_score": 1})


def test_an_ordinary_portrait_leaves_nobody_out(portrait: Image) -> None:
    assert find(portrait).left_out == {}
    large = cv2.resize(portrait, None, fx=14, fy=14, interpolation=cv2.INTER_CUBIC)
    found = find(large)
    assert (len(found.faces), found.left_out) == (1, {})


@pytest.fixture(scope="module")
def models(sface: IdentityEncoder, detector: FaceDetector) -> ProtectionModels:
    return ProtectionModels(
        torch.device("cpu"), detector, [sface], [], load_diffusion=None, lpips=None
    )


@pytest.fixture(scope="module")
def config() -> MethodSettings:
    return preset_settings("zero-shot").changed("loop.num_steps=2")


def test_a_photo_with_faces_left_out_is_not_plainly_protected(
    portrait: Image, sface: IdentityEncoder, config: MethodSettings
) -> None:
    both = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    limits = FaceDetectorSettings(max_faces=1)
    models = ProtectionModels(
        torch.device("cpu"), load_face_detector(limits), [sface], [], None, None
    )
    (photo,) = protect_photo_set([Photo("both", both)], [], models, config).photos
    assert (photo.status, photo.reason) == ("partly_protected", "faces_left_out")
    assert (len(photo.faces), photo.left_out) == (1, {"too_many": 1})
    assert photo.image is not None


def test_a_photo_whose_only_faces_are_left_out_says_so(
    portrait: Image, sface: IdentityEncoder, config: MethodSettings
) -> None:
    models = ProtectionModels(
        torch.device("cpu"),
        load_face_detector(FaceDetectorSettings(min_size_px=200)),
        [sface],
        [],
        None,
        None,
    )
    (photo,) = protect_photo_set([Photo("small", portrait)], [], models, config).photos
    assert (photo.status, photo.reason) == ("skipped", "no_face")
    assert photo.left_out == {"too_small": 1}


def at_work(portrait: Image, num_faces: int, sface: IdentityEncoder) -> PhotoAtWork:
    """A photo in which the same face is named so many times, each with a view of its own."""
    (face,) = find(portrait).faces
    photo = PhotoAtWork(Photo("group", portrait), [face] * num_faces)
    photo.begin(11 / 255, 1 / 255, keyed_generator(0, "start"))
    (photo.identities,) = clean_identities([photo.photo], [photo.found], [sface], "cpu")
    return photo


def of_layer_2(sface: IdentityEncoder) -> PhotoLikeness:
    return PhotoLikeness([sface], True, -1.0, seed=0, micro_batch=8, cost=Cost())


def test_faces_that_take_turns_add_up_to_the_gradient_of_all_together(
    portrait: Image, sface: IdentityEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [at_work(portrait, count, sface) for count in (1, 4, 2)]
    loss = of_layer_2(sface)
    together = loss.gradients(photos, 0)
    monkeypatch.setattr(photo_likeness, "FACES_PER_PASS", 2)
    in_turns = loss.gradients(photos, 0)
    for one, other in zip(together, in_turns, strict=True):
        assert float((one - other).norm()) < 1e-3 * float(one.norm())
    assert loss.cost.encoder_passes == 2 * 7


def most_kept(loss: PhotoLikeness, photo: PhotoAtWork) -> int:
    """Bytes that graphs kept for their way back, at most at a time."""
    kept = most = 0

    def release(number: int) -> None:
        nonlocal kept
        kept -= number

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal kept, most
            self.tensor = tensor
            number = tensor.numel() * tensor.element_size()
            kept += number
            most = max(most, kept)
            weakref.finalize(self, release, number)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda saved: saved.tensor):
        loss.gradients([photo], 0)
    return most


def test_what_graphs_keep_does_not_grow_with_the_number_of_faces(
    portrait: Image, sface: IdentityEncoder
) -> None:
    loss = of_layer_2(sface)
    few, many = (
        most_kept(loss, at_work(portrait, turns * FACES_PER_PASS, sface)) for turns in (1, 3)
    )
    assert 0 < many < 1.2 * few  # views differ in what handling keeps of them


def test_masks_of_many_faces_are_never_in_memory_together() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def masks() -> Iterator[torch.Tensor]:
        for number in range(40):
            mask = torch.zeros(1, 1, 40, 40)
            mask[..., number, :] = 1.0
            made.append(weakref.ref(mask))
            yield mask
            del mask
            assert sum(one() is not None for one in made) <= 2

    flat = 1.0
    budget = budget_map(torch.full((1, 3, 40, 40), 0.5), 1.0, 5.0, masks(), flat)
    assert isinstance(budget, torch.Tensor)
    assert torch.allclose(budget, torch.tensor(5 / 255))


def test_causes_are_named_alike_in_the_method_and_in_the_manifest() -> None:
    assert get_args(LeftOutCause) == LEFT_OUT_CAUSES
