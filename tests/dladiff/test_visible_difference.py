"""How much a face's change is seen, on a real face and on fixed patterns."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pycvvdp
import pytest
import torch
from torch import Tensor

from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image, Images, image_to_tensor
from dladiff.results import Face
from dladiff.visible_difference import DISPLAY, face_visibility_jod, worst_face_jod
from dladiff.waitless_vdp import WaitlessVdp


@pytest.fixture(scope="module")
def face(astronaut: Image, detector: FaceDetector) -> Face:
    return detector.detect(astronaut)[0]


def with_grating(image: Image, period_px: float, levels: float, channels: list[int]) -> Image:
    wave = levels * np.sin(np.arange(image.shape[1]) * 2 * np.pi / period_px)
    changed = image.astype(np.float64)
    changed[:, :, channels] += wave[None, :, None]
    return changed.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("period_px", "levels", "channels", "jod", "jod_1x"),
    [
        (8, 4, [0, 1, 2], 9.293, 9.798),
        (2.5, 4, [0, 1, 2], 9.904, 9.971),
        (8, 12, [0, 1, 2], 7.160, 8.546),
        (48, 6, [0], 9.771, 9.847),
    ],
    ids=["creases", "fine texture", "deep creases", "blotches"],
)
def test_gratings_on_a_real_face_show_as_much_as_the_measure_says(
    astronaut: Image,
    face: Face,
    period_px: float,
    levels: float,
    channels: list[int],
    jod: float,
    jod_1x: float,
) -> None:
    changed = with_grating(astronaut, period_px, levels, channels)
    assert worst_face_jod(astronaut, changed, [face], "cpu") == pytest.approx(jod, abs=0.02)
    at_1x = worst_face_jod(astronaut, changed, [face], "cpu", magnification=1.0)
    assert at_1x == pytest.approx(jod_1x, abs=0.02)


def test_the_same_face_shows_no_difference(astronaut: Image, face: Face) -> None:
    assert worst_face_jod(astronaut, astronaut, [face], "cpu") == pytest.approx(10, abs=1e-4)


def test_only_faces_count_and_the_one_that_shows_most(astronaut: Image, face: Face) -> None:
    changed = astronaut.copy()
    changed[-40:] = 0
    assert worst_face_jod(astronaut, changed, [face], "cpu") == pytest.approx(10, abs=1e-4)
    assert worst_face_jod(astronaut, changed, [], "cpu") is None
    foot = Face((200.0, 460.0, 250.0, 510.0), face.landmarks, 1.0)
    worst = worst_face_jod(astronaut, changed, [face, foot], "cpu")
    assert worst is not None
    assert worst < 8


@pytest.mark.parametrize("box", [(0.0, 0.0, 6.0, 7.0), (500.0, 500.0, 530.0, 530.0)])
def test_small_faces_and_those_at_the_border_have_a_value(
    astronaut: Image, face: Face, box: tuple[float, float, float, float]
) -> None:
    changed = with_grating(astronaut, 4, 20, [0, 1, 2])
    jod = worst_face_jod(astronaut, changed, [Face(box, face.landmarks, 1.0)], "cpu")
    assert jod is not None
    assert 3 < jod < 9.9


def test_the_measure_has_a_gradient(astronaut: Image, face: Face) -> None:
    clean: Images = image_to_tensor(astronaut, "cpu")
    change = torch.full_like(clean, 0.02).requires_grad_(True)
    face_visibility_jod(clean, clean + change, face).backward()  # type: ignore[no-untyped-call]
    assert change.grad is not None
    assert torch.isfinite(change.grad).all()
    assert float(change.grad.abs().max()) > 0


def test_a_face_larger_than_a_screen_is_seen_as_it_fills_one(astronaut: Image, face: Face) -> None:
    whole = Face((0.0, 0.0, 480.0, 480.0), face.landmarks, 1.0)
    changed = with_grating(astronaut, 16, 12, [0, 1, 2])
    seen = worst_face_jod(astronaut, changed, [whole], "cpu")
    large = [np.repeat(np.repeat(image, 4, axis=0), 4, axis=1) for image in (astronaut, changed)]
    box = (0.0, 0.0, 1920.0, 1920.0)
    of_large = worst_face_jod(large[0], large[1], [replace(whole, box=box)], "cpu")
    assert of_large == pytest.approx(seen, abs=0.1)


def the_packages_own(nearness: float) -> pycvvdp.cvvdp:
    metric = pycvvdp.cvvdp(display_name=DISPLAY, device=torch.device("cpu"), quiet=True)
    metric.pix_per_deg = metric.pix_per_deg / nearness
    return metric


@pytest.mark.parametrize("nearness", [1.0, 2.0])
@pytest.mark.parametrize("levels", [0.02, 2.0, 60.0])
def test_values_and_gradients_are_those_of_the_package(
    astronaut: Image, nearness: float, levels: float
) -> None:
    """Bit by bit, below and above the difference from which JODs follow a power."""
    clean: Images = image_to_tensor(astronaut[40:150, 180:307], "cpu")
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(clean.shape, generator=generator) * levels / 255
    own = WaitlessVdp(DISPLAY, torch.device("cpu"), nearness)
    theirs = the_packages_own(nearness)
    looks: list[Callable[[Images, Images], Tensor]] = [
        own.jod,
        lambda other, clean: theirs.predict(other, clean, dim_order="BCHW")[0],
    ]
    found = []
    for look in looks:
        leaf = change.clone().requires_grad_(True)
        jod = look(clean + leaf, clean).reshape(())
        found.append((jod.detach(), *torch.autograd.grad(jod, leaf)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert float(found[0][1].abs().max()) > 0
