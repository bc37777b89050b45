"""Both aims in one loop, on the embedded autoencoder and a real face."""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch

from dladiff.ascent_loop import Step
from dladiff.config import (
    LoopSettings,
    MethodSettings,
    ModelSettings,
    preset_settings,
)
from dladiff.diffusion.checkpoint import load_autoencoder
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.likeness_defense import (
    NUM_CONTENT_STEPS,
    LikenessSchedule,
    LikenessStop,
    PhotoLosses,
    all_step_sizes,
    settled,
)
from dladiff.models import ProtectionModels
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.protect import protect_photo_set
from dladiff.results import Cost, Photo, SetResult


@pytest.fixture(scope="module")
def models(detector: FaceDetector, sface: IdentityEncoder) -> ProtectionModels:
    def never() -> None:
        raise AssertionError("photos with faces need no surrogate")

    return ProtectionModels(
        torch.device("cpu"),
        detector,
        [sface],
        [load_autoencoder(ModelSettings(), "cpu")],
        load_diffusion=never,  # type: ignore[arg-type]
        lpips=None,
    )


@pytest.fixture(scope="module")
def config() -> MethodSettings:
    steps = "loop.num_steps=15", "loop.step_size_levels=2", "loop.finishing_steps=32"
    return preset_settings("fast").changed(*steps, "loop.visibility_jod=null")


@pytest.fixture(scope="module")
def photos(astronaut: Image) -> list[Photo]:
    face = np.ascontiguousarray(astronaut[:256, 110:334])
    return [Photo("one", face), Photo("two", np.ascontiguousarray(face[:, ::-1]))]


@pytest.fixture(scope="module")
def result(photos: list[Photo], models: ProtectionModels, config: MethodSettings) -> SetResult:
    return protect_photo_set(photos, [], models, config)


def test_neither_the_model_nor_the_photo_shows_the_person(result: SetResult) -> None:
    for photo in result.photos:
        assert (photo.status, photo.stop_reason) == ("protected", "num_steps")
        (on_photo,), (in_model,) = photo.identity_cosines, photo.model_likeness
        assert on_photo.before > 0.9
        assert on_photo.after < 0.35
        assert in_model.before > 0.5
        assert in_model.after < 0.25
        assert in_model.after_handling < 0.4


def test_the_budgets_hold_inside_and_outside_of_the_face(
    result: SetResult, photos: list[Photo], config: MethodSettings
) -> None:
    for photo, clean in zip(result.photos, photos, strict=True):
        assert photo.image is not None
        (face,) = photo.faces
        assert face.mask_extent is not None
        left, top, right, bottom = face.mask_extent
        change = np.abs(photo.image.astype(int) - clean.image.astype(int)).max(axis=2)
        assert 11 < change[top:bottom, left:right].max() <= 18
        change[top:bottom, left:right] = 0
        assert change.max() == config.budget.surroundings_levels == 3
        assert photo.max_change_levels_outside_faces == 3


def test_the_same_photos_give_the_same_bytes(
    result: SetResult, photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    again = protect_photo_set(photos, [], models, config)
    for one, other in zip(again.photos, result.photos, strict=True):
        assert one.image is not None
        assert other.image is not None
        assert np.array_equal(one.image, other.image)
    assert again.cost.vae_passes == result.cost.vae_passes > 0
    assert again.cost.unet_forward_backward_pairs == 0


def test_steps_fall_from_twice_the_mean_and_average_to_it() -> None:
    steps = all_step_sizes(LoopSettings(num_steps=60, step_size_levels=0.5))
    assert len(steps) == 60
    assert steps[0] == pytest.approx(1.0)
    assert steps == sorted(steps, reverse=True)
    assert np.mean(steps) == pytest.approx(0.5, rel=0.02)
    assert min(steps) == pytest.approx(0.05)


def test_a_shorter_loop_settles_from_where_it_is_and_ends_on_the_photo() -> None:
    whole = all_step_sizes(LoopSettings(num_steps=60, step_size_levels=0.5))
    short = settled(whole, 20, photo_step_every=3)
    assert len(short) == 30
    assert short[:20] == whole[:20]
    assert short == sorted(short, reverse=True)
    assert short[-1] == pytest.approx(whole[-1])
    assert len(settled(whole, 21, photo_step_every=3)) == 33
    assert settled(whole, 50, photo_step_every=3) == whole  # nothing to gain any more


def test_the_stop_rule_asks_the_photo_that_shows_most_over_ten_looks() -> None:
    rule, never = LikenessStop(0.1), LikenessStop(None)
    for look in range(20):
        early = 0.9 if look < 10 else 0.0
        # The second photo shows no face in every other look: those do not count.
        for each in (rule, never):
            each.add(torch.tensor([early, 0.2 if look < 10 else torch.nan if look % 2 else 0.08]))
        assert rule.is_met() == (look == 19)
        assert not never.is_met()
    for _ in range(10):
        rule.add(torch.tensor([-0.5, 0.11]))
    assert not rule.is_met()


def test_a_loop_that_has_reached_its_aim_ends_early(
    photos: list[Photo], models: ProtectionModels
) -> None:
    method = preset_settings("strong").changed("loop.stop_cosine=0.3", "loop.step_size_levels=1")
    done: list[float] = []

    def report(stage: str, fraction: float) -> None:
        if stage == "likeness":
            done.append(fraction)

    short = protect_photo_set(photos, [], models, method, report)
    assert {photo.stop_reason for photo in short.photos} == {"stop_cosine"}
    assert max(photo.model_likeness[0].after for photo in short.photos) < 0.3
    assert len(done) < method.loop.num_steps == 60
    assert done[-1] == 1


def test_finishing_steps_move_only_faces_that_still_ask_for_it(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    def protect(num_finishing: int, target_cosine: float) -> SetResult:
        method = config.changed(
            "loop.num_steps=6",
            f"loop.finishing_steps={num_finishing}",
            f"loop.photo_target_cosine={target_cosine}",
        )
        return protect_photo_set(photos, [], models, method)

    content, without_any = protect(8, 0.9), protect(0, 0.9)
    for photo, without in zip(content.photos, without_any.photos, strict=True):
        assert np.array_equal(photo.image, without.image)  # type: ignore[arg-type]
    looks = content.cost.encoder_passes - without_any.cost.encoder_passes
    assert looks == NUM_CONTENT_STEPS * len(photos)
    for photo, without in zip(protect(8, -1.0).photos, protect(0, -1.0).photos, strict=True):
        assert photo.identity_cosines[0].after < without.identity_cosines[0].after - 0.1
        assert photo.stop_reason == "num_steps"


def test_faces_keep_the_looks_that_are_asked_for(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    found = {}
    for target in (9.0, 9.6):
        held = config.changed(f"loop.visibility_jod={target}")
        found[target] = protect_photo_set(photos[:1], [], models, held).photos
        for photo in found[target]:
            assert photo.face_visibility_jod is not None
            assert photo.face_visibility_jod_1x is not None
            assert target - 0.01 <= photo.face_visibility_jod <= target + 0.11
            # At 9.6, smooth changes are seen about as well at the photo's own size.
            tie = 0.05 if target == 9.6 else 0.0
            assert photo.face_visibility_jod < photo.face_visibility_jod_1x + tie
    for shown, hidden in zip(found[9.0], found[9.6], strict=True):
        assert hidden.model_likeness[0].after > shown.model_likeness[0].after


def jpeg_read_back(image: Image, quality: int = 60) -> Image:
    """What a JPEG file of a quality shows of it."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(PIL.Image.open(buffer))


def test_faces_keep_their_looks_in_the_file_that_is_saved(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    saved = jpeg_read_back(photos[0].image)
    photo = replace(photos[0], image=saved, read_back=jpeg_read_back, jpeg_quality=60)
    held = config.changed("loop.visibility_jod=9.3")
    (result,) = protect_photo_set([photo], [], models, held).photos
    assert result.face_visibility_jod == pytest.approx(9.35, abs=0.07)


def test_a_photo_that_will_be_a_jpeg_is_protected_as_one(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    likeness = []
    for quality in (None, 12):
        served = partial(jpeg_read_back, quality=12)
        to_save = [replace(each, read_back=served, jpeg_quality=quality) for each in photos]
        found = protect_photo_set(to_save, [], models, config).photos
        likeness.append(np.mean([photo.identity_cosines[0].after for photo in found]))
    unaware, aware = likeness
    # .05 and -.14. At quality 60 both are below the target, so that nothing is left to gain.
    assert aware < unaware - 0.08


def test_a_grey_photo_is_protected_in_its_one_channel(
    photos: list[Photo], models: ProtectionModels, config: MethodSettings
) -> None:
    def read_back(image: Image) -> Image:
        return np.array(PIL.Image.fromarray(image).convert("L").convert("RGB"))

    likeness = []
    for is_grey in (False, True):
        grey = [
            replace(each, image=read_back(each.image), read_back=read_back, is_grey=is_grey)
            for each in photos
        ]
        found = protect_photo_set(grey, [], models, config).photos
        likeness.append(np.mean([photo.model_likeness[0].after for photo in found]))
    unaware, aware = likeness
    assert aware < unaware - 0.03  # of seeds 0, 1, 2: .09, .06, .08


class NothingShown:
    """L_id that nobody asks."""

    def gradients(
        self, photos: Sequence[PhotoAtWork], step: int, turn: int | None = None
    ) -> tuple[list[NativePhoto], torch.Tensor]:
        raise AssertionError("a schedule takes no steps itself")


def schedule_of(settings: LoopSettings) -> LikenessSchedule:
    on_photo = PhotoLikeness([], True, 0.0, seed=0, micro_batch=1, cost=Cost())
    return LikenessSchedule(NothingShown(), PhotoLosses(on_photo, on_photo), settings)


def draw_of(step: Step[PhotoAtWork]) -> int:
    """What keys the draws of its loss."""
    assert isinstance(step.loss, partial)
    keywords = step.loss.keywords
    return int(keywords["draw"] if "draw" in keywords else keywords["step"])


def test_losses_take_turns_and_finishing_steps_come_last_without_momentum() -> None:
    schedule = schedule_of(LoopSettings(num_steps=6, photo_step_every=3, finishing_steps=2))
    steps = list(schedule)
    assert [step.may_vanish for step in steps] == [False, False, True] * 2 + [True] * 2
    assert [step.momentum > 0 for step in steps] == [True] * 6 + [False] * 2
    assert [draw_of(step) for step in steps] == list(range(8))
    assert (schedule.num_taken, len(schedule)) == (6, 8)
    sizes = [step.size_levels for step in steps]
    assert sizes[:6] == sorted(sizes[:6], reverse=True)
    assert sizes[6:] == [0.5, 0.25]


def test_autoencoders_and_faces_take_turns_whatever_lies_between() -> None:
    for every in (2, 3):
        steps = schedule_of(LoopSettings(num_steps=9, photo_step_every=every, finishing_steps=0))
        losses = [step.loss for step in steps]
        turns = [
            loss.keywords["turn"]
            for loss in losses
            if isinstance(loss, partial) and "turn" in loss.keywords
        ]
        assert turns == [*range(9 - 9 // every)]


def test_what_is_heard_cuts_the_schedule_short_and_finishing_steps_still_come() -> None:
    settings = LoopSettings(num_steps=90, photo_step_every=3, finishing_steps=4, stop_cosine=0.1)
    schedule = schedule_of(settings)
    draws = []
    for step in schedule:
        draws.append(draw_of(step))
        if not step.may_vanish:
            schedule.hear(torch.tensor([0.05]))
    # Ten looks among fourteen steps, then at least ten more to settle, up to a look at the photo.
    assert schedule.num_taken == 24
    assert draws == [*range(24), *range(90, 94)]
