"""Views of a photo: where they look, and what a perturbation of the photo does to them."""

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from dladiff.faces import crop_from_photo
from dladiff.layer1.views import View, attackers_views, training_views
from dladiff.photo_at_work import PhotoAtWork, carry_to_native
from tests.layer1_scenes import a_face, random_photo

TEMPLATE = torch.tensor([[0.355, 0.45], [0.645, 0.45], [0.5, 0.61], [0.38, 0.755], [0.62, 0.755]])
SHARES = (0.4, 0.4, 0.2)


def views_of(
    photo: PhotoAtWork,
    template: torch.Tensor | None = None,
    count: int = 8,
    seed: int = 0,
    shares: tuple[float, float, float] = SHARES,
) -> tuple[View, ...]:
    generator = torch.Generator().manual_seed(seed)
    return training_views(photo, count, shares, template, 32, generator)


def kinds(views: tuple[View, ...]) -> dict[str, int]:
    found = [view.kind for view in views]
    return {kind: found.count(kind) for kind in ("whole", "face", "template")}


def test_views_are_shared_out_by_what_a_photo_and_a_checkpoint_have() -> None:
    with_face = PhotoAtWork.of_images("a", random_photo(0, 60, 80), [a_face(20.0, 15.0, 30.0)])
    without = PhotoAtWork.of_images("b", random_photo(0, 60, 80), [])
    assert kinds(views_of(with_face, TEMPLATE)) == {"whole": 3, "face": 3, "template": 2}
    assert kinds(views_of(with_face)) == {"whole": 4, "face": 4, "template": 0}
    assert kinds(views_of(without, TEMPLATE)) == {"whole": 8, "face": 0, "template": 0}
    assert kinds(views_of(without, TEMPLATE, shares=(0.0, 0.5, 0.5)))["whole"] == 8


@pytest.mark.parametrize(("height", "width"), [(41, 97), (97, 41), (64, 64), (33, 35)])
def test_every_square_lies_inside_the_photo(height: int, width: int) -> None:
    faces = [a_face(-4.0, -6.0, 24.0), a_face(width - 15.0, height - 15.0, 20.0)]
    photo = PhotoAtWork.of_images("a", random_photo(0, height, width), faces)
    for seed in range(20):
        for view in views_of(photo, seed=seed):
            assert view.square is not None
            left, top, side = view.square
            assert 0 <= left <= left + side <= width
            assert 0 <= top <= top + side <= height
            assert view.look(photo.clean, 32).shape == (1, 3, 32, 32)


def test_draws_repeat_with_their_generator_and_differ_without() -> None:
    photo = PhotoAtWork.of_images("a", random_photo(0, 60, 90), [a_face(20.0, 15.0, 30.0)])

    def squares(seed: int) -> list[object]:
        return [(view.square, view.flip) for view in views_of(photo, seed=seed)]

    assert squares(3) == squares(3)
    assert squares(3) != squares(4)


def test_a_square_is_reduced_as_pillow_reduces_it() -> None:
    photo = random_photo(4, 90, 120)
    seen = View("whole", square=(15, 0, 90)).look(photo, 32)
    array = (photo[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    cropped = PillowImage.fromarray(array).crop((15, 0, 105, 90))
    expected = np.asarray(cropped.resize((32, 32), PillowImage.Resampling.BILINEAR)) / 255
    difference = np.abs(seen[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 1.5 / 255


def test_a_flipped_view_is_mirrored() -> None:
    photo = random_photo(4, 40, 40)
    plain = View("whole", square=(0, 0, 40))
    mirrored = View("whole", square=(0, 0, 40), flip=True)
    assert torch.equal(mirrored.look(photo, 32), plain.look(photo, 32).flip(-1))


@pytest.mark.parametrize("kind", ["whole", "face", "template"])
def test_gradient_of_a_native_size_perturbation_agrees_with_finite_differences(kind: str) -> None:
    face = a_face(20.0, 12.0, 40.0)
    photo = PhotoAtWork.of_images("a", random_photo(5, 71, 93).double(), [face])
    view = next(v for v in views_of(photo, TEMPLATE) if v.kind == kind)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(1, 3, 32, 32, generator=generator).double()
    direction = torch.randn(photo.clean.shape, generator=generator).double()

    def loss(perturbation: torch.Tensor) -> torch.Tensor:
        return (view.look(photo.clean + perturbation, 32).square() * weights).sum()

    leaf = torch.zeros_like(photo.clean, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = 1e-6
    difference = (loss(step * direction) - loss(-step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-8)
    # Antialiasing: no pixel of the seen part is left without a gradient.
    if view.square is not None:
        left, top, side = view.square
        inside = gradient[..., top + 1 : top + side - 1, left + 1 : left + side - 1]
        assert (inside.abs().amax(dim=1) > 0).all()


def test_the_template_view_puts_landmarks_where_the_checkpoint_expects_them() -> None:
    face = a_face(31.0, 22.0, 37.0)
    photo = PhotoAtWork.of_images("a", random_photo(5, 90, 110), [face])
    (view,) = attackers_views(photo, TEMPLATE, 64)
    assert view.photo_from_view is not None
    expected = crop_from_photo(face, TEMPLATE.numpy().astype(np.float64) * 64)
    np.testing.assert_allclose(np.linalg.inv(view.photo_from_view), expected, atol=1e-9)
    # The eyes' midpoint of a drawn face is symmetric: it lands on the template's.
    eyes = np.append(face.landmarks[:2].mean(axis=0), 1.0)
    landed = np.linalg.inv(view.photo_from_view) @ eyes
    assert abs(landed[0] - 32) < 1.0


def test_an_attacker_without_a_template_sees_the_whole_and_the_face() -> None:
    photo = PhotoAtWork.of_images("a", random_photo(0, 60, 90), [a_face(30.0, 20.0, 20.0)])
    views = attackers_views(photo, None, 32)
    assert [view.square for view in views] == [(15, 0, 60), (24, 14, 32)]
    assert len(attackers_views(PhotoAtWork.of_images("b", photo.clean, []), TEMPLATE, 32)) == 1


def test_a_large_photo_lives_on_a_smaller_grid_and_its_bound_holds_on_the_way_back() -> None:
    photo = PhotoAtWork.of_images("a", torch.rand(1, 3, 1000, 2000), [a_face(500.0, 300.0, 200.0)])
    assert photo.clean.shape == (1, 3, 768, 1536)
    assert photo.native_size == (1000, 2000)
    assert photo.faces[0].box[0] == pytest.approx(500 * 0.768)
    perturbation = (torch.rand(photo.clean.shape) < 0.5).float() * 14 / 255 - 7 / 255
    native = carry_to_native(perturbation, photo.native_size)
    assert native.shape == (1, 3, 1000, 2000)
    assert float(native.abs().max()) <= 7 / 255 + 1e-8


def test_a_small_photo_keeps_its_own_pixels() -> None:
    images = random_photo(0, 37, 53)
    photo = PhotoAtWork.of_images("a", images, [])
    assert torch.equal(photo.clean, images)
    assert carry_to_native(images, (37, 53)) is images
    with pytest.raises(ValueError, match="batch of one photo, got 2"):
        PhotoAtWork.of_images("a", torch.rand(2, 3, 8, 8), [])
