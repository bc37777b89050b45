"""L_id: its gradient through every kind of view, several faces, mixtures, autoencoders in turns."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.faces import ARCFACE_TEMPLATE, crop_from_photo, estimate_similarity, warp_prefiltered
from dladiff.identities import FaceIdentity
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.layer1.views import View, ViewKind, draw_view
from dladiff.photo_at_work import PhotoAtWork
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, Face
from tests.layer1_scenes import TinyEncoder, a_face, in_float64, random_photo

SHARES = {"whole": (1.0, 0.0, 0.0), "face": (0.0, 1.0, 0.0), "template": (0.0, 0.0, 1.0)}


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither noise nor jitter, so that numbers can be compared."""
    monkeypatch.setattr(AutoencoderLikeness, "latent_noise", 0.0)
    monkeypatch.setattr(AutoencoderLikeness, "crop_jitter", 0.0)


@pytest.fixture(scope="module")
def encoder() -> IdentityEncoder:
    return IdentityEncoder("tiny", TinyEncoder().double().requires_grad_(False))


@pytest.fixture
def autoencoder(diffusion: DiffusionModel) -> Autoencoder:
    return in_float64(diffusion)


def unit(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(1, 5, generator=generator).double(), dim=1)


def known(key: str, seed: int, faces: list[Face], person: int = 0) -> PhotoAtWork:
    """A photo whose face ``person`` is the person, all others bystanders."""
    clean = random_photo(seed, 64, 80).double()
    photo = PhotoAtWork.of_images(key, clean, faces)
    photo.begin(7 / 255, 2 / 255, keyed_generator(seed, "start"))
    photo.identities = [
        FaceIdentity({"tiny": unit(n)}, {"tiny": unit(99 if n == person else n)}, n == person)
        for n in range(len(faces))
    ]
    return photo


def likeness(
    autoencoder: Autoencoder,
    encoder: IdentityEncoder,
    kind: ViewKind = "template",
    num_mixtures: int = 0,
) -> AutoencoderLikeness:
    loss = AutoencoderLikeness([autoencoder], [encoder], [], num_mixtures, False, 0, 4, Cost())
    loss.view_shares = SHARES[kind]
    return loss


def seen_cosine(
    photo: PhotoAtWork, delta: torch.Tensor, view: View, autoencoder: Autoencoder,
    encoder: IdentityEncoder,
) -> float:  # fmt: skip
    """L_id's cosine on its own: the whole photo is looked at, no part is cut out before."""
    side = autoencoder.resolution
    decoded = autoencoder.decode(autoencoder.encode(view.look(photo.clean + delta, side)))
    total = 0.0
    for face, identity in zip(photo.faces, photo.identities, strict=True):
        landmarks = view.landmarks(face, side)
        if (landmarks >= 0).all() and (landmarks <= side - 1).all():
            matrix = np.linalg.inv(estimate_similarity(landmarks, ARCFACE_TEMPLATE))
            crop = warp_prefiltered(decoded, matrix, 112)
            total += float((encoder.embed(crop) * identity.target["tiny"]).sum())
    return total


@pytest.mark.parametrize("kind", ["whole", "face", "template"])
def test_the_gradient_agrees_with_finite_differences_in_each_kind_of_view(
    autoencoder: Autoencoder, encoder: IdentityEncoder, kind: ViewKind
) -> None:
    photo = known("a", 1, [a_face(20.0, 12.0, 36.0)])
    step = 2
    (gradient,), _ = likeness(autoencoder, encoder, kind).gradients([photo], step)
    generator = keyed_generator(0, "a", "likeness", step)

    view = draw_view(
        photo, kind, photo.faces[0],
        autoencoder.aligned_template, autoencoder.resolution, generator,
    )  # fmt: skip
    at = photo.perturbation
    direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(5)).double()
    up, down = (
        seen_cosine(photo, at + sign * direction, view, autoencoder, encoder)
        for sign in (1e-6, -1e-6)
    )
    # The encoder's gradient is brought to unit length at the decoded image: compare directions.
    directional = -(up - down) / 2e-6
    scale = float((gradient * direction).sum()) / directional
    other = torch.randn(at.shape, generator=torch.Generator().manual_seed(6)).double()
    up, down = (
        seen_cosine(photo, at + sign * other, view, autoencoder, encoder) for sign in (1e-6, -1e-6)
    )
    assert scale > 0
    assert float((gradient * other).sum()) == pytest.approx(
        -scale * (up - down) / 2e-6, rel=1e-3, abs=1e-6 * scale
    )


def test_steps_lower_the_likeness_of_a_turned_a_small_and_a_second_face(
    autoencoder: Autoencoder, encoder: IdentityEncoder
) -> None:
    turned = a_face(14.0, 10.0, 30.0)
    angle = np.deg2rad(25)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = turned.landmarks.mean(axis=0)
    landmarks = ((turned.landmarks - centre) @ spin.T + centre).astype(np.float32)
    turned = dataclasses.replace(turned, landmarks=landmarks)
    small, second = a_face(52.0, 6.0, 17.0), a_face(50.0, 34.0, 26.0)
    photo = known("group", 4, [turned, small, second], person=0)
    loss = likeness(autoencoder, encoder)

    def likenesses() -> list[float]:
        side, template = (
            autoencoder.resolution,
            np.array([[0.4, 0.42], [0.6, 0.42], [0.5, 0.53], [0.42, 0.63], [0.58, 0.63]]),
        )
        found = []
        for number, face in enumerate(photo.faces):
            view = View(
                "template",
                photo_from_view=np.linalg.inv(crop_from_photo(face, template * side)),
            )
            of_face = [photo.identities[number]]
            only = dataclasses.replace(photo, found=[face], identities=of_face)
            found.append(seen_cosine(only, photo.perturbation, view, autoencoder, encoder))
        return found

    before = likenesses()
    for step in range(24):
        (gradient,), _ = loss.gradients([photo], step)
        photo.ascent.step(gradient, 1 / 255, 0.9)
    after = likenesses()
    assert all(a < b - 0.01 for a, b in zip(after, before, strict=True)), (before, after)
    photo.ascent.require_live("group")


@pytest.mark.parametrize("kind", ["whole", "face"])
@pytest.mark.parametrize(
    "place", [(40.0, 20.0, 6.0), (2.0, 20.0, 30.0), (-9.0, 20.0, 30.0)], ids=["tiny", "edge", "cut"]
)
def test_a_view_without_a_learnable_face_becomes_an_aligned_one_instead_of_a_dead_step(
    autoencoder: Autoencoder,
    encoder: IdentityEncoder,
    kind: ViewKind,
    place: tuple[float, float, float],
) -> None:
    loss = likeness(autoencoder, encoder, kind)
    photo = known("far away", 4, [a_face(*place)])
    for step in range(6):  # whole views are drawn anywhere along the long side
        (gradient,), cosines = loss.gradients([photo], step)
        assert float(gradient.abs().max()) > 0
        assert torch.isfinite(cosines).all()


def test_mixtures_reach_every_photo_and_count_as_rows_of_the_decoder(
    autoencoder: Autoencoder, encoder: IdentityEncoder
) -> None:
    photos = [known(key, n, [a_face(20.0, 12.0, 36.0)]) for n, key in enumerate("abc")]
    alone = likeness(autoencoder, encoder)
    mixed = likeness(autoencoder, encoder, num_mixtures=2)
    (plain, _), (coupled, _) = alone.gradients(photos, 0), mixed.gradients(photos, 0)
    assert not any(torch.equal(a, b) for a, b in zip(plain, coupled, strict=True))
    assert mixed.cost.vae_passes == alone.cost.vae_passes + 2
    (single,), _ = mixed.gradients(photos[:1], 0)
    assert torch.isfinite(single).all()  # one photo has nothing to be mixed with


def test_the_draws_of_a_photo_do_not_depend_on_its_company(
    autoencoder: Autoencoder, encoder: IdentityEncoder
) -> None:
    loss = likeness(autoencoder, encoder, "face")
    photos = [known(key, n, [a_face(20.0, 12.0, 36.0)]) for n, key in enumerate("ab")]
    (_, together), _ = loss.gradients(photos, 3)
    (alone,), _ = loss.gradients(photos[1:], 3)
    cosine = torch.nn.functional.cosine_similarity(together.flatten(), alone.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-9)


def test_each_autoencoder_takes_its_turn(
    diffusion: DiffusionModel, velocity_diffusion: DiffusionModel, encoder: IdentityEncoder
) -> None:
    both = [in_float64(diffusion), in_float64(velocity_diffusion)]
    photo = known("a", 1, [a_face(20.0, 12.0, 36.0)])
    loss = AutoencoderLikeness(both, [encoder], [], 0, False, 0, 4, Cost())
    for step in (0, 1):
        one = AutoencoderLikeness([both[step]], [encoder], [], 0, False, 0, 4, Cost())
        (turn,), _ = loss.gradients([photo], step)
        (expected,), _ = one.gradients([photo], step)
        assert torch.equal(turn, expected)


def test_more_encoders_push_but_the_stop_rule_does_not_ask_them(
    autoencoder: Autoencoder, encoder: IdentityEncoder
) -> None:
    photo = known("a", 1, [a_face(20.0, 12.0, 36.0)])
    network = TinyEncoder().double().requires_grad_(False)
    network.say.weight.neg_()
    other = dataclasses.replace(encoder, name="other", network=network)
    (identity,) = photo.identities
    of_both = dict.fromkeys(("tiny", "other"), identity.target["tiny"])
    photo.identities = [FaceIdentity(of_both, of_both, is_person=True)]
    found = {}
    for name, leading, more in (
        ("one", [encoder], []),
        ("more", [encoder], [other]),
        ("equals", [encoder, other], []),
    ):
        loss = AutoencoderLikeness(
            [autoencoder], leading, more, 0, False, seed=0, micro_batch=4, cost=Cost()
        )
        (gradient,), cosines = loss.gradients([photo], 0)
        found[name] = gradient, float(cosines[0])
    assert torch.equal(found["more"][0], found["equals"][0])
    assert not torch.equal(found["more"][0], found["one"][0])
    assert found["more"][1] == found["one"][1] < found["equals"][1]


def test_all_weights_stay_frozen_and_as_they_were(
    autoencoder: Autoencoder, encoder: IdentityEncoder
) -> None:
    before = copy.deepcopy(autoencoder.vae.state_dict())
    photo = known("a", 1, [a_face(20.0, 12.0, 36.0)])
    likeness(autoencoder, encoder, num_mixtures=2).gradients([photo], 0)
    assert not any(weight.requires_grad for weight in autoencoder.vae.parameters())
    after = autoencoder.vae.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def three_photos() -> list[PhotoAtWork]:
    return [
        known(key, seed, [a_face(24.0, 20.0, 28.0)]) for seed, key in enumerate(("a", "b", "c"))
    ]


@pytest.mark.parametrize(("rows", "num_photos"), [(2, 3), (0, 3), (0, 1)])
def test_fewer_rows_a_pass_change_nothing_but_the_memory(
    autoencoder: Autoencoder, encoder: IdentityEncoder, rows: int, num_photos: int
) -> None:
    photos = three_photos()[:num_photos]
    whole, seen = likeness(autoencoder, encoder).gradients(photos, 5)
    by_rows = dataclasses.replace(autoencoder, rows_per_pass=rows)
    parts, seen_of_parts = likeness(by_rows, encoder).gradients(photos, 5)
    for one, other in zip(whole, parts, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(seen, seen_of_parts, rtol=1e-9, atol=1e-12)


class SmallMemory(Autoencoder):
    """Runs out of memory with more than ``most`` images a pass, like an accelerator."""

    most = 1

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if len(latents) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().decode(latents)


def small_memory(autoencoder: Autoencoder, most: int) -> Autoencoder:
    small = SmallMemory(
        vae=autoencoder.vae,
        resolution=autoencoder.resolution,
        face_template=autoencoder.face_template,
    )
    object.__setattr__(small, "most", most)
    return small


def test_out_of_memory_halves_the_rows_once_with_a_note(
    autoencoder: Autoencoder, encoder: IdentityEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = likeness(autoencoder, encoder).gradients(three_photos(), 5)
    small = likeness(small_memory(autoencoder, 2), encoder)
    found, _ = small.gradients(three_photos(), 5)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)
    assert "with 4 images a pass of an autoencoder: going on with 2" in caplog.text
    caplog.clear()
    small.gradients(three_photos(), 6)
    assert not caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        likeness(small_memory(autoencoder, 1), encoder).gradients(three_photos(), 5)
