"""A small evaluation: trees of real faces, a tiny real checkpoint, cells done in this process."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.evaluation.cells import AttackCell
from pipeline.evaluation.settings import EvaluationSettings, evaluation_settings
from pipeline.evaluation.workers import Workers
from tests.sample_photos import encode, face_album

FEW_STEPS = (
    "dreambooth.num_steps=2",
    "dreambooth.num_inference_steps=2",
    "lora.num_steps=2",
    "lora.num_inference_steps=2",
    "zero_shot.num_inference_steps=2",
    "untouched.num_inference_steps=2",
)


def write_trees(
    folder: Path, photos_of: dict[str, int], num_protected: int = 4, levels: int = 7
) -> tuple[Path, Path]:
    """CLEAN with a real face in each photo, and PROTECTED: the first photos plus sign noise."""
    clean = face_album(folder / "clean", photos_of)
    protected = folder / "protected"
    for path in sorted(clean.rglob("*.png")):
        if int(path.stem) < num_protected:
            image = np.asarray(Image.open(path)).astype(int)
            noise = np.random.default_rng(0).choice([-levels, levels], image.shape)
            target = protected / path.relative_to(clean)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encode(np.clip(image + noise, 0, 255).astype(np.uint8), "PNG"))
    return clean, protected


def few_images(checkpoint: Path | None = None, **given: object) -> EvaluationSettings:
    """Two images of two steps each, judged by SFace alone unless said otherwise."""
    from dladiff.config import EncoderSettings

    values: dict[str, Any] = {
        "attacks": ("dreambooth",),
        "handlings": ("none",),
        "num_images": 2,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "judges": (EncoderSettings(name="sface", kind="sface"),),
    }
    values |= given
    return evaluation_settings("core", values, few_steps(values["attacks"]))


def few_steps(attacks: Collection[str]) -> list[str]:
    """Those of ``FEW_STEPS`` that some attacks and their floor read."""
    read = (*attacks, "untouched")
    return [step for step in FEW_STEPS if step.partition(".")[0] in read]


class InProcess:
    """Does tasks here, one after the other; may end after some, as a killed evaluation does."""

    def __init__(self, at_most: int = 10**9) -> None:
        self.done: list[Any] = []
        self.at_most = at_most

    @contextmanager
    def __call__(self, num_cells: int) -> Iterator[Workers]:
        yield Workers(device="cpu", threads=1, do_all=self._do_all)

    def _do_all(self, do: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            if len(self.done) >= self.at_most:
                raise SystemExit("killed")
            outcome = do(task)
            self.done.append(task)
            yield task, outcome

    @property
    def attacks(self) -> list[AttackCell]:
        """The attacks that were done."""
        return [cell for cell in self.done if isinstance(cell, AttackCell)]
