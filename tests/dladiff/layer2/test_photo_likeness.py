"""Layer 2's loss on the photo's grid: it goes downhill and stops asking at its target."""

import numpy as np
import pytest
import torch

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.faces import crop_from_photo, warp
from dladiff.identities import clean_identities
from dladiff.image_values import Image
from dladiff.layer2.face_views import Warps
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.photo_at_work import PhotoAtWork
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, Photo
from dladiff.transforms import gaussian_blur

STILL = Warps((1.0, 1.0), flip=False, jitter_px=0.0)


@pytest.fixture
def photo(astronaut: Image, detector: FaceDetector, sface: IdentityEncoder) -> PhotoAtWork:
    image = np.ascontiguousarray(astronaut[:256, 110:334])
    faces = detector.detect(image)
    photo = PhotoAtWork(Photo("a", image), faces)
    photo.begin(11 / 255, 1 / 255, keyed_generator(0, "start"))
    (photo.identities,) = clean_identities([photo.photo], [faces], [sface], "cpu")
    return photo


def cosine(photo: PhotoAtWork, sface: IdentityEncoder) -> float:
    face = photo.faces[0]
    crop = warp(photo.ascent.images, np.linalg.inv(crop_from_photo(face)), 112)
    return float((sface.embed(crop) * photo.identities[0].own["sface"]).sum())


def test_steps_make_the_face_less_like_itself_until_it_is_unlike_enough(
    photo: PhotoAtWork, sface: IdentityEncoder
) -> None:
    loss = PhotoLikeness([sface], True, 0.2, seed=0, micro_batch=4, cost=Cost())
    before = cosine(photo, sface)
    for step in range(30):
        (gradient,) = loss.gradients([photo], step)
        photo.ascent.step(gradient, 1 / 255, 0.9, may_vanish=True)
    assert before > 0.9
    assert cosine(photo, sface) < 0.3


def test_a_content_face_has_no_gradient_and_an_unlike_target_has_one(
    photo: PhotoAtWork, sface: IdentityEncoder
) -> None:
    content = PhotoLikeness([sface], False, 1.1, seed=0, micro_batch=4, cost=Cost(), warps=STILL)
    (gradient,) = content.gradients([photo], 0)
    assert float(gradient.abs().max()) == 0
    asking = PhotoLikeness([sface], False, 0.0, seed=0, micro_batch=4, cost=Cost(), warps=STILL)
    (gradient,) = asking.gradients([photo], 0)
    assert float(gradient.abs().max()) > 0
    left, top, right, bottom = (round(edge) for edge in photo.faces[0].box)
    outside = gradient.clone()
    outside[..., max(0, top - 60) : bottom + 60, max(0, left - 60) : right + 60] = 0
    assert float(outside.abs().max()) == 0


def test_the_gradient_agrees_with_a_step_along_it(
    photo: PhotoAtWork, sface: IdentityEncoder
) -> None:
    loss = PhotoLikeness([sface], False, -1.0, seed=0, micro_batch=4, cost=Cost(), warps=STILL)
    before = cosine(photo, sface)
    (gradient,) = loss.gradients([photo], 1)
    ascent = photo.ascent
    ascent.perturbation = ascent.perturbation + 0.05 * gradient / gradient.norm()
    assert cosine(photo, sface) < before
    assert torch.isfinite(gradient).all()


def test_a_smooth_gradient_draws_nothing_fine_and_still_goes_downhill(
    photo: PhotoAtWork, sface: IdentityEncoder
) -> None:
    fine = []
    for is_smooth in (False, True):
        loss = PhotoLikeness(
            [sface], False, -1.0, 0, micro_batch=4, cost=Cost(), warps=STILL, is_smooth=is_smooth
        )
        (gradient,) = loss.gradients([photo], 1)
        detail = gradient - gaussian_blur(gradient, 1.0)
        fine.append(float(detail.norm() / gradient.norm()))
    assert fine[1] < 0.6 * fine[0]
    before = cosine(photo, sface)
    photo.ascent.perturbation = photo.ascent.perturbation + 0.05 * gradient / gradient.norm()
    assert cosine(photo, sface) < before
