"""The method on an accelerator that is none: devices, waits, precision, operations and bytes.

``benchmarks.stand_in`` computes nothing, so that published models run at their true size.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.other_methods import of_method
from benchmarks.published_models import AUTOENCODERS, frozen
from benchmarks.stand_in import HostSyncError, StandIn, device
from benchmarks.stand_in_models import autoencoder
from dladiff import visible_difference
from dladiff.accelerator import best_device, memory_bytes, peak_memory_bytes, precision_on
from dladiff.diffusion.memory import rows_that_fit
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.identities import FaceIdentity
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.photo_at_work import PhotoAtWork
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, Photo
from dladiff.visibility_control import VisibilityControl
from tests.layer1_scenes import TinyEncoder, a_face

NO_WAITS = frozenset[str]()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    device()
    with StandIn(waits_allowed=NO_WAITS) as context:
        yield context


def test_two_devices_do_not_mix_and_nobody_waits_unseen(stand_in: StandIn) -> None:
    there = torch.zeros(3, device=device())
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.zeros(3)
    for wait in (
        lambda: there.sum().item(),
        lambda: bool((there > 0).any()),
        lambda: there.cpu(),
        lambda: there[there > 0],
    ):
        with pytest.raises(HostSyncError):
            wait()
    assert stand_in.waits.total() == 4
    assert float(torch.tensor([2.0, 3.0]).sum()) == 5


def test_draws_and_geometry_on_the_host_stay_real(stand_in: StandIn) -> None:
    generator = torch.Generator().manual_seed(0)
    expected = torch.Generator().manual_seed(0)
    assert torch.rand(2, generator=generator).tolist() == torch.rand(2, generator=expected).tolist()
    assert torch.rand(2, generator=generator).to(device()).device.type == device().type


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux1", "flux2"])
def test_a_step_through_a_published_autoencoder_never_waits(name: str, stand_in: StandIn) -> None:
    """At its resolution, in bfloat16, of two photos with mixtures."""
    model = autoencoder(name, "bfloat16")
    assert {weight.dtype for weight in model.vae.parameters()} == {torch.bfloat16}
    with torch.device(device()):
        encoder = IdentityEncoder("tiny", TinyEncoder().requires_grad_(False))
    photos = [known(key) for key in "ab"]
    loss = AutoencoderLikeness([model], [encoder], [], 2, True, 0, 8, Cost())
    loss.view_shares = (0.0, 0.0, 1.0)
    before = stand_in.flops
    gradients, cosines = loss.gradients(photos, 1)
    assert {gradient.device.type for gradient in gradients} == {device().type}
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert cosines.shape == (2,)
    for photo, gradient in zip(photos, gradients, strict=True):
        photo.ascent.step(gradient, 1 / 255, 0.9)
    assert stand_in.waits.total() == 0
    assert stand_in.flops - before > 1e12


@pytest.mark.slow
def test_steps_that_follow_what_is_seen_never_wait(stand_in: StandIn) -> None:
    """The gradient of what is seen, what each face keeps, and the steps that both hold back."""
    visible_difference.measure_on.cache_clear()  # Tables are of the stand-in that made them.
    photos = [known(key) for key in "ab"]
    control = VisibilityControl(photos, 9.2)
    for step in range(9):
        control.before_step(step)
        for photo in photos:
            photo.ascent.step(torch.ones_like(photo.perturbation), 1 / 255, 0.9)
        control.after_step(step + 1)
    visible_difference.measure_on.cache_clear()
    assert stand_in.waits.total() == 0
    for photo in photos:
        assert photo.ascent.restraint is not None
        assert photo.ascent.restraint.device.type == device().type


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_photos", "device_gib", "most_gib"),
    [("sd15", 4, 10, 10), ("sd15", 4, 24, 24), ("sdxl", 1, 20, 20), ("sdxl", 4, 16, 16)],
)
def test_a_step_fits_into_the_memory_of_the_device(
    name: str,
    num_photos: int,
    device_gib: int,
    most_gib: float,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, photos and all that is saved for the way back, by count, in bfloat16."""
    backend = torch.get_device_module(device())
    monkeypatch.setattr(backend, "total_memory", device_gib * 2**30)
    model = autoencoder(name, "bfloat16")
    with torch.device(device()):
        encoder = IdentityEncoder("tiny", TinyEncoder().requires_grad_(False))
    loss = AutoencoderLikeness([model], [encoder], [], 2, True, 0, 8, Cost())
    loss.view_shares = (0.0, 0.0, 1.0)
    loss.gradients([known(key) for key in "abcd"[:num_photos]], 1)
    assert stand_in.peak_bytes / 2**30 < most_gib


@pytest.mark.slow
def test_a_step_of_another_method_is_counted_and_waits_only_at_the_end() -> None:
    """PhotoGuard's encodes a photo and comes back: about twice Stable Diffusion's encoding."""
    device()
    with StandIn() as counted:
        row = of_method(counted, "photoguard")
    assert row["tflop_a_photo_and_step"] == pytest.approx(2 * 1.12, rel=0.05)
    assert set(counted.waits) == {"projected_gradient.py:require_live_gradient"}


def known(key: str) -> PhotoAtWork:
    """A grey photo with one face, the person's."""
    photo = Photo(key, np.full((256, 256, 3), 128, np.uint8))
    at_work = PhotoAtWork(photo, [a_face(60.0, 60.0, 120.0)], device())
    at_work.begin(7 / 255, 2 / 255, keyed_generator(0, key))
    unit = torch.ones(1, 5, device=device())
    at_work.identities = [FaceIdentity({"tiny": unit}, {"tiny": unit}, True)]
    return at_work


def test_the_count_is_that_of_a_real_run() -> None:
    """Operations there and back and what autograd keeps, of a small autoencoder on the CPU."""
    with torch.random.fork_rng():
        real = small_autoencoder()
    weights = {weight.untyped_storage().data_ptr() for weight in real.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device()
    with FlopCounterMode(display=False) as real_flops:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images, shown = there_and_back(real, torch.device("cpu"))
        torch.autograd.grad(shown.sum(), images)
    saved = sum(size for address, size in kept.items() if address not in weights)

    with StandIn() as counted:
        with torch.device(device()):
            vae = small_autoencoder()
        before, flops = counted.live_bytes, counted.flops
        images, shown = there_and_back(vae, device())
        assert counted.live_bytes - before == pytest.approx(saved, rel=0.1)
        torch.autograd.grad(shown.sum(), images)
        assert counted.flops - flops == pytest.approx(real_flops.get_total_flops(), rel=0.1)


def small_autoencoder() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
    )
    return frozen(vae)


def there_and_back(vae: AutoencoderKL, where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.zeros(2, 3, 64, 64, device=where, requires_grad=True)
    return images, vae.decode(vae.encode(images * 2 - 1).latent_dist.mode()).sample


def test_others_in_the_process_can_still_fork_their_random_numbers() -> None:
    device()
    torch.manual_seed(3)
    with torch.random.fork_rng():
        torch.rand(2)
    torch.testing.assert_close(
        torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(3))
    )


def test_a_cpu_is_no_accelerator() -> None:
    cpu = torch.device("cpu")
    assert precision_on(cpu, "auto") == precision_on(cpu, "float32") == "float32"
    assert (memory_bytes(cpu), peak_memory_bytes(cpu)) == (None, None)
    assert best_device().type in ("cpu", "cuda")


def test_lower_precision_is_what_auto_means_on_an_accelerator(stand_in: StandIn) -> None:
    assert precision_on(device(), "auto") == "bfloat16"
    assert precision_on(device(), "float32") == "float32"


@pytest.mark.parametrize(
    ("gib", "precision", "rows"),
    [(10, "bfloat16", 1), (24, "bfloat16", 4), (24, "float32", 2), (80, "bfloat16", 14)],
)
def test_rows_of_stable_diffusion_by_memory(gib: int, precision: str, rows: int) -> None:
    with torch.device("meta"):
        vae = AUTOENCODERS["sd15"].build()
    assert rows_that_fit(vae, 512, precision, gib * 2**30) == rows  # type: ignore[arg-type]
