"""The one loop: steps in their order, what stands between them, and who takes none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from dladiff.ascent_loop import Step, ascend
from dladiff.errors import GradientError
from dladiff.projected_gradient import GradientAscent


@dataclass
class Bearer:
    key: str
    ascent: GradientAscent


def bearer(key: str) -> Bearer:
    ascent = GradientAscent.begin(
        torch.full((1, 3, 4, 4), 0.5), 3 / 255, 0.0, torch.Generator().manual_seed(0)
    )
    return Bearer(key, ascent)


def test_steps_are_taken_in_order_and_training_stands_between_them() -> None:
    things, seen = [bearer("a"), bearer("b")], list[str]()

    def up(given: Sequence[Bearer]) -> list[torch.Tensor | None]:
        seen.append(f"loss at {float(given[0].ascent.perturbation.max()) * 255:.0f}")
        return [torch.ones(1, 3, 4, 4), None]

    def method() -> Iterator[Step[Bearer]]:
        for number in range(2):
            seen.append(f"train {number}")
            yield Step(up, 2.0)
        seen.append("done")

    assert ascend(things, method(), "test") == 2
    assert seen == ["train 0", "loss at 0", "train 1", "loss at 2", "done"]
    # The budget holds, and whom the loss passes over stays as it is.
    assert float(things[0].ascent.perturbation.max()) == pytest.approx(3 / 255)
    assert float(things[1].ascent.perturbation.abs().max()) == 0


def test_a_dead_gradient_is_an_error_that_names_method_and_photo() -> None:
    thing = bearer("ann")
    nothing = Step[Bearer](lambda _: [torch.zeros(1, 3, 4, 4)], 1.0)
    with pytest.raises(GradientError, match="mist, photo ann"):
        ascend([thing], [nothing], "mist")
    content = Step[Bearer](lambda _: [torch.zeros(1, 3, 4, 4)], 1.0, may_vanish=True)
    assert ascend([bearer("ben")], [content], "mist") == 1
