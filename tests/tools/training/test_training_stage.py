"""A stage resumes where it ended, and its rate follows the plan."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from tools.training.training_stage import TrainingStage, stage_arguments


def stage_in(folder: Path, *options: str) -> tuple[TrainingStage, nn.Linear]:
    arguments: argparse.Namespace = stage_arguments("").parse_args(
        ["--work", str(folder), "--warmup-steps", "4", *options]
    )
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return TrainingStage("tiny", model, arguments, learning_rate=0.1), model


def take_steps(stage: TrainingStage, model: nn.Linear, count: int) -> None:
    for _ in range(count):
        values = torch.full((5, 3), float(stage.step))
        stage.update((model(values) - 1).square().mean())


def test_a_resumed_stage_takes_the_same_steps(tmp_path: Path) -> None:
    whole, whole_model = stage_in(tmp_path / "whole")
    take_steps(whole, whole_model, 6)

    first, first_model = stage_in(tmp_path / "parts")
    take_steps(first, first_model, 3)
    first.save()
    second, second_model = stage_in(tmp_path / "parts")
    assert second.step == 3
    take_steps(second, second_model, 3)

    torch.testing.assert_close(second_model.weight, whole_model.weight, rtol=0, atol=0)
    averaged = [stage.averaged.state_dict()["weight"] for stage in (second, whole)]
    torch.testing.assert_close(*averaged, rtol=0, atol=0)


def test_rate_warms_up_and_cools_down_only_when_asked(tmp_path: Path) -> None:
    stage, model = stage_in(tmp_path)
    assert stage.rate() == pytest.approx(0.1 / 4)
    take_steps(stage, model, 4)
    assert stage.rate() == pytest.approx(0.1)
    cooling, model = stage_in(tmp_path / "other", "--minutes", "1e-9", "--cooldown", "1")
    take_steps(cooling, model, 4)
    assert cooling.rate() == 0.0
    assert not cooling.running()


def test_a_stage_ends_at_its_last_step_and_cools_down_towards_it(tmp_path: Path) -> None:
    stage, model = stage_in(tmp_path, "--steps", "8", "--cooldown", "0.5")
    take_steps(stage, model, 4)
    assert stage.rate() == pytest.approx(0.1)
    take_steps(stage, model, 3)
    assert 0 < stage.rate() < 0.05
    assert stage.running()
    take_steps(stage, model, 1)
    assert not stage.running()


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    stage, model = stage_in(tmp_path)
    before = model.weight.detach().clone()
    stage.update(model(torch.full((1, 3), float("nan"))).sum())
    assert torch.equal(model.weight, before)


def test_the_checkpoint_of_another_build_is_refused(tmp_path: Path) -> None:
    stage, _ = stage_in(tmp_path, "--build", "attacker-128")
    stage.save()
    with pytest.raises(ValueError, match="of build attacker-128: give --build attacker-128"):
        stage_in(tmp_path)
