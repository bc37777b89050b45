"""The probe of what an attacker could learn, and the rule that stops by it."""

from collections.abc import Iterator

import pytest
import torch

from dladiff.config import ProbeSettings, SurrogateSettings
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import evaluation_pairs
from dladiff.diffusion.surrogates import open_surrogates
from dladiff.layer1.probe import Probe, StopRule
from dladiff.results import Cost


@pytest.fixture
def probe(diffusion: DiffusionModel) -> Iterator[Probe]:
    surrogate = SurrogateSettings(lora_rank=4)
    settings = ProbeSettings(num_steps=15, num_eval_pairs=4, learning_rate=1e-2)
    with open_surrogates(diffusion, surrogate, ("probe",), seed=0) as surrogates:
        yield Probe(surrogates, diffusion, clean_latents(), surrogate, settings, 0, 8, Cost())


def clean_latents() -> torch.Tensor:
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5


def test_clean_photos_teach_exactly_everything(probe: Probe) -> None:
    assert probe.loss_after_clean < probe.loss_of_checkpoint
    assert probe.learned_fraction(clean_latents()) == 1.0


def test_latents_of_something_else_teach_less(probe: Probe) -> None:
    other = torch.full((3, 4, 16, 16), 4.0)
    learned = probe.learned_fraction(other)
    assert learned is not None
    assert learned < 0.9


def test_a_probe_leaves_no_trace(probe: Probe) -> None:
    first = probe.learned_fraction(clean_latents() + 1)
    probe.learned_fraction(clean_latents() * -3)
    assert probe.learned_fraction(clean_latents() + 1) == first


def test_nothing_is_said_where_the_clean_photos_teach_nothing(probe: Probe) -> None:
    probe.loss_after_clean = probe.loss_of_checkpoint
    assert probe.learned_fraction(clean_latents()) is None


def test_evaluation_pairs_are_fixed_and_spread_over_the_timesteps(
    diffusion: DiffusionModel,
) -> None:
    timesteps, noise = evaluation_pairs(2, 4, diffusion, seed=1)
    again, noise_again = evaluation_pairs(2, 4, diffusion, seed=1)
    assert torch.equal(timesteps, again)
    assert torch.equal(noise, noise_again)
    assert [int((t - 1) * 4 / 999) for t in timesteps] == [0, 1, 2, 3] * 2


def test_stops_at_the_target_or_when_two_checks_gain_little() -> None:
    settings = ProbeSettings(target_learned_fraction=0.3, min_gain=0.02)
    assert StopRule(settings).reason_to_stop(0.29) == "target_reached"
    rule = StopRule(settings)
    assert [rule.reason_to_stop(x) for x in (0.8, 0.6, None, 0.59, 0.58)] == [
        None,
        None,
        None,
        None,
        "no_gain",
    ]
