"""Progress within a photo set: every step counts, and time left follows from steps."""

import pytest

from dladiff.config import MethodSettings, PresetName, preset_settings
from pipeline.options import PlanCounts
from pipeline.reporting.displays import progress_line
from pipeline.reporting.tally import Tally
from pipeline.worker.progress import SetProgress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told_of(method: MethodSettings, *heard: tuple[str, float]) -> list[float]:
    told, clock = list[float](), Clock()
    progress = SetProgress("s", method, lambda _, done: told.append(done), clock=clock)
    progress.begin_group(2)
    for stage, fraction in heard:
        clock.now += 2
        progress.hear(stage, fraction)
    return told


@pytest.mark.parametrize(
    ("preset", "stages"),
    [
        ("balanced", ["likeness"]),
        ("zero-shot", ["layer2"]),
        ("paper", ["layer1", "layer2"]),
        ("mist", ["layer1"]),
    ],
)
def test_steps_move_on_in_every_stage_of_a_method(preset: PresetName, stages: list[str]) -> None:
    heard = [(stage, step / 4) for stage in stages for step in range(1, 5)]
    told = told_of(preset_settings(preset), *heard, ("measure", 0.5), ("measure", 1.0))
    assert told == sorted(set(told))  # each step is more than the one before
    assert told[-1] == 2.0


def test_the_first_step_is_told_at_once_and_others_at_most_once_an_interval() -> None:
    told, clock = list[float](), Clock()
    method = preset_settings("zero-shot")
    progress = SetProgress("s", method, lambda _, done: told.append(done), 1.0, clock)
    progress.begin_group(1)
    for step in range(1, 11):
        clock.now += 0.3
        progress.hear("layer2", step / 10)
    assert told == pytest.approx([0.095, 0.475, 0.855])


def test_groups_of_a_set_add_up_and_a_second_try_does_not_go_back() -> None:
    told, clock = list[float](), Clock()
    method = preset_settings("zero-shot")
    progress = SetProgress("s", method, lambda _, done: told.append(done), 0.0, clock)
    progress.begin_group(3)
    progress.hear("layer2", 1.0)
    progress.hear("layer2", 0.1)
    progress.begin_group(1)
    progress.hear("layer2", 0.0)
    assert told == pytest.approx([2.85, 2.85, 3.0])


def test_a_line_moves_and_promises_before_any_photo_is_decided() -> None:
    clock = Clock()
    tally, done = Tally(clock), dict[str, float]()
    tally.started(PlanCounts(num_photos=16, num_sets=4))
    tally.stage("protect")
    tally.at_work(lambda: done)
    clock.now += 60  # loading models is no step
    assert "0.0 % done" in progress_line(tally)
    done["a"] = 0.4
    assert "left" not in progress_line(tally)
    clock.now += 12
    done["a"] = 1.6
    line = progress_line(tally)
    assert "0 of 16 photos, 0 of 4 sets, 10.0 % done" in line
    assert "about 2 min 24 s left" in line
