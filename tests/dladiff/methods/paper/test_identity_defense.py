"""Layer 2: budget, masks, draws that depend on nothing else, large faces, several faces."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dladiff.config import MethodSettings, preset_settings
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.faces import rescaled
from dladiff.image_values import LEVEL, Image, tensor_to_image
from dladiff.layer2.face_views import Warps, draw_view
from dladiff.methods.paper.canvas import crop_of, image_canvas
from dladiff.methods.paper.identity_defense import (
    begin_attack,
    defend_identity,
    ensemble_gradients,
)
from dladiff.photo_at_work import PhotoAtWork
from dladiff.projected_gradient import project
from dladiff.randomness import keyed_generator
from dladiff.results import Face, Photo

FEW = preset_settings("zero-shot").changed(
    "loop.num_steps=4", "loop.step_size_levels=4", "micro_batch=4"
)
NO_WARPS = Warps((1.0, 1.0), flip=False, jitter_px=0.0)


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> Image:
    """The astronaut's head and shoulders, 256x224."""
    return np.ascontiguousarray(astronaut[:256, 110:334])


@pytest.fixture(scope="module")
def face(portrait: Image, detector: FaceDetector) -> Face:
    (found,) = detector.detect(portrait)
    return found


def _defend(
    photos: Sequence[PhotoAtWork],
    sface: IdentityEncoder,
    method: MethodSettings = FEW,
) -> int:
    return defend_identity(photos, [sface], method)


def _photo(key: str, image: Image, faces: Sequence[Face]) -> PhotoAtWork:
    return PhotoAtWork(Photo(key, image), list(faces))


def _protected(photo: PhotoAtWork) -> Image:
    return tensor_to_image(photo.with_added(photo.perturbed(), 11 * LEVEL))


def _change(clean: Image, protected: Image) -> np.ndarray:
    change: np.ndarray = np.abs(clean.astype(np.int16) - protected.astype(np.int16)).max(axis=2)
    return change


def test_the_cosine_falls_within_the_budget_and_nothing_changes_outside_the_mask(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    photo = _photo("a", portrait, [face])
    _defend([photo], sface, FEW.changed("loop.num_steps=12"))
    change = _change(portrait, _protected(photo))
    extent = photo.found[0].mask_extent
    assert extent is not None
    left, top, right, bottom = extent
    assert 8 <= change.max() <= 11
    change[top:bottom, left:right] = 0
    assert change.max() == 0
    assert photo.stop_reason == "num_steps"
    attack = begin_attack(photo, 0, [sface], FEW, "cpu")
    attack.ascent.perturbation = photo.added[0].lattice
    still = draw_view(NO_WARPS, False, keyed_generator(0))
    crop = crop_of(still, attack.canvas, attack.ascent.perturbation, sface)
    cosine = float((sface.embed(crop) * attack.clean_embeds["sface"]).sum())
    assert cosine < 0.3


def test_the_same_seed_gives_the_same_bytes_in_any_company(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    width = portrait.shape[1]
    box = (width - face.box[2], face.box[1], width - face.box[0], face.box[3])
    landmarks = face.landmarks[[1, 0, 2, 4, 3]].copy()
    landmarks[:, 0] = width - 1 - landmarks[:, 0]
    ours, again = (_photo("a", portrait, [face]) for _ in range(2))
    other = _photo("b", mirrored, [replace(face, box=box, landmarks=landmarks)])
    one = FEW.changed("micro_batch=1")
    _defend([ours], sface, one)
    _defend([other, again], sface, one)
    assert np.array_equal(_protected(ours), _protected(again))


def test_gradients_do_not_depend_on_the_micro_batch(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    photos = [_photo(key, portrait, [face]) for key in ("a", "b", "c")]
    attacks = [begin_attack(photo, 0, [sface], FEW, "cpu") for photo in photos]
    together = ensemble_gradients(attacks, [sface], FEW, step=3)
    for attack, expected in zip(attacks, together, strict=True):
        (alone,) = ensemble_gradients([attack], [sface], FEW, step=3)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_gradient_reaches_the_pixels_through_every_kind_of_view(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    attack = begin_attack(_photo("a", portrait, [face]), 0, [sface], FEW, "cpu")
    for step in range(4):
        (gradient,) = ensemble_gradients([attack], [sface], FEW, step)
        inside = gradient[(attack.canvas.mask > 0.5).expand_as(gradient)]
        assert torch.isfinite(gradient).all()
        assert float((inside != 0).float().mean()) > 0.5


def test_a_view_of_nothing_is_opencvs_crop(portrait: Image, face: Face) -> None:
    canvas = image_canvas(portrait, None, face, "cpu", 1.1)
    view = draw_view(NO_WARPS, False, _generator_without_prefilter())
    encoder = IdentityEncoder("identity", torch.nn.Identity())
    crop = crop_of(view, canvas, torch.zeros_like(canvas.base), encoder)[0].permute(1, 2, 0).numpy()
    matrix = canvas.template_from_native.copy()
    matrix[:2, 2] -= matrix[:2, :2] @ np.array(canvas.placement.region[:2])
    expected = cv2.warpAffine(portrait, matrix[:2], (112, 112)) / 255
    assert np.abs(crop - expected).mean() < 0.005


def _generator_without_prefilter() -> torch.Generator:
    for number in range(100):
        if not draw_view(NO_WARPS, False, keyed_generator(number)).prefilter:
            return keyed_generator(number)
    raise AssertionError("no draw without a prefilter in a hundred")


def test_overlapping_faces_share_one_budget(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    moved = replace(
        face,
        box=(face.box[0] + 20, face.box[1], face.box[2] + 20, face.box[3]),
        landmarks=face.landmarks + np.array([20, 0], np.float32),
    )
    photo = _photo("a", portrait, [face, moved])
    _defend([photo], sface)
    assert len(photo.added) == 2
    change = _change(portrait, _protected(photo))
    assert change.max() <= 11
    outside = change.copy()
    for found in photo.found:
        assert found.mask_extent is not None
        left, top, right, bottom = found.mask_extent
        assert change[top:bottom, left:right].mean() > 3
        outside[top:bottom, left:right] = 0
    assert outside.max() == 0


def test_a_face_far_larger_than_the_grid_keeps_the_bound_and_moves(
    portrait: Image, face: Face, sface: IdentityEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dladiff.methods.paper.canvas.GRID_MAX_CELLS", 96)
    large = cv2.resize(portrait, (224 * 4, 256 * 4), interpolation=cv2.INTER_CUBIC)
    photo = _photo("large", large, [rescaled(face, 4.0)])
    settings = FEW.changed("loop.num_steps=10")
    _defend([photo], sface, settings)
    (carried,) = photo.added
    assert max(carried.lattice.shape) < 200
    assert float(carried.on_photo().abs().max()) <= 11 * LEVEL + 1e-6
    change = _change(large, _protected(photo))
    assert 6 <= change.max() <= 11
    attack = begin_attack(photo, 0, [sface], settings, "cpu")
    protected = image_canvas(_protected(photo), None, photo.found[0], "cpu", 1.1)
    still = draw_view(NO_WARPS, False, _generator_without_prefilter())
    crop = crop_of(still, protected, torch.zeros_like(protected.base), sface)
    assert float((sface.embed(crop) * attack.clean_embeds["sface"]).sum()) < 0.5


def test_crop_mode_stops_at_its_cosine_and_changes_only_the_crop(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    settings = preset_settings("paper").changed(
        "loop={stop_cosine: 0.5, num_steps: 40, step_size_levels: 1.0}"
    )
    photo = _photo("a", portrait, [face])
    assert _defend([photo], sface, settings) < 40
    assert photo.stop_reason == "stop_cosine"
    change = _change(portrait, _protected(photo))
    assert 0 < change.max() <= 11
    extent = photo.found[0].mask_extent
    assert extent is not None
    left, top, right, bottom = extent
    change[top:bottom, left:right] = 0
    assert change.max() == 0


def test_layer_2_builds_on_layer_1_within_both_budgets(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(1, 3, *portrait.shape[:2], generator=generator) - 0.5) * 14 * LEVEL
    photo = _photo("a", portrait, [face])
    photo.begin(7 * LEVEL, 0.0, generator).perturbation = project(noise, photo.clean, 7 * LEVEL)
    _defend([photo], sface)
    change = _change(portrait, _protected(photo))
    assert 8 < change.max() <= 18
    left, top, right, bottom = photo.found[0].mask_extent or (0, 0, 0, 0)
    change[top:bottom, left:right] = 0
    assert 0 < change.max() <= 7


def test_held_out_encoders_never_enter_the_loss(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    class Forbidden(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a held-out encoder was asked")

    spy = IdentityEncoder("spy", Forbidden(), held_out=True)
    with_spy, without = (_photo("a", portrait, [face]) for _ in range(2))
    defend_identity([with_spy], [spy, sface], FEW)
    _defend([without], sface)
    assert np.array_equal(_protected(with_spy), _protected(without))


def test_progress_rises_to_one_and_faceless_photos_are_left_alone(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    seen: list[float] = []
    photos = [_photo("none", portrait, []), _photo("a", portrait, [face])]
    defend_identity(photos, [sface], FEW, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert photos[0].added == []
    assert np.array_equal(_protected(photos[0]), portrait)
