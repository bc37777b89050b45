"""Trains a remover: a network that predicts clean photos from protected ones.

``python -m tools.training.remover CLEAN PROTECTED OUT.safetensors --minutes 60``, where PROTECTED
is what `dladiff protect CLEAN PROTECTED` made. The same command again goes on from the checkpoint
beside OUT. `dladiff evaluate CLEAN PROTECTED RESULTS --handling unprotect --remover
OUT.safetensors` asks what is left of a protection: of other people than these, or it flatters the
remover.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dladiff.config import FaceDetectorSettings
from dladiff.errors import DladiffError
from dladiff.evaluation.judges import MIN_FACE_SCORE
from dladiff.evaluation.remover import Remover, mean_change_levels, save_remover
from dladiff.evaluation.scores import auc
from dladiff.face_detection import load_face_detector
from dladiff.image_values import Images, levels_to_unit
from dladiff.quality import psnr_db
from pipeline.errors import PipelineError
from pipeline.evaluation.people import require_trees
from pipeline.reporting.words import format_count
from tools.training.remover_pairs import Pair, Pairs, counted, draw_batch, read_pairs
from tools.training.training_stage import TrainingStage, begin_stage, plan_arguments

HUBER_LEVELS = 8.0
GRADIENT_WEIGHT = 0.2
"""Of the difference between neighbouring pixels, beside the pixels themselves: fine patterns are
a small part of a mean over pixels."""
REPORTED_PAIRS = 24
"""Held-out photos on which progress is measured; the end is measured on all."""


@dataclass(frozen=True)
class HeldOut:
    """What a remover does on photos of people it was not trained on; means over photos."""

    num_photos: int
    protected_psnr_db: float
    """Of faces, protected against clean."""
    removed_psnr_db: float
    """Of faces, with the protection removed against clean."""
    detection_auc: float
    """How well the size of the remover's change tells protected faces from clean ones."""

    def __str__(self) -> str:
        return (
            f"{self.num_photos} held-out photos: psnr in faces, protected "
            f"{self.protected_psnr_db:.2f} dB, removed {self.removed_psnr_db:.2f} dB, auc of "
            f"protected against clean by the size of the change {self.detection_auc:.3f}"
        )


def removal_loss(removed: Images, clean: Images) -> torch.Tensor:
    """Huber's loss of pixels, and of the steps between neighbouring pixels.

    Squares up to the size of a protection's change, absolute values beyond. Absolute values alone
    have a kink where nothing is to be changed: tried on 12 pairs of ``balanced``, they held the
    remover at changing nothing for all of 500 steps.
    """
    difference = removed - clean
    steps = _huber(difference.diff(dim=-1)) + _huber(difference.diff(dim=-2))
    return _huber(difference) + GRADIENT_WEIGHT * steps


def _huber(difference: torch.Tensor) -> torch.Tensor:
    return functional.smooth_l1_loss(
        difference, torch.zeros_like(difference), beta=levels_to_unit(HUBER_LEVELS)
    )


def take_step(stage: TrainingStage, pairs: Sequence[Pair]) -> None:
    """One optimiser step on a batch that follows from the seed and the number of the step."""
    arguments = stage.arguments
    random = np.random.default_rng([arguments.seed, stage.step])
    given, clean = (
        images.to(arguments.device, memory_format=torch.channels_last)
        for images in draw_batch(pairs, arguments.batch_size, random)
    )
    with torch.autocast(given.device.type, torch.bfloat16, enabled=arguments.bfloat16):
        removed = stage.model(given)
    stage.update(removal_loss(removed.float(), clean))


def measure(remover: Remover, pairs: Sequence[Pair]) -> HeldOut:
    """Asks a remover for the clean photo, of protected and of clean ones."""
    psnr, of_protected, of_clean = [], [], []
    for pair in pairs:
        left, top, right, bottom = pair.face
        face = slice(top, bottom), slice(left, right)
        removed = remover.remove(pair.protected)
        psnr.append([psnr_db(pair.clean[face], image[face]) for image in (pair.protected, removed)])
        of_protected.append(mean_change_levels(pair.protected[face], removed[face]))
        of_clean.append(mean_change_levels(pair.clean[face], remover.remove(pair.clean)[face]))
    known = [both for both in psnr if np.isfinite(both).all()]
    before, after = np.mean(known, axis=0) if known else (np.nan, np.nan)
    return HeldOut(len(pairs), float(before), float(after), auc(of_protected, of_clean))


def main(command_line: Sequence[str] | None = None) -> int:
    """Trains from the command line; returns the exit code."""
    parser = plan_arguments(__doc__ or "")
    parser.add_argument("clean", metavar="CLEAN", help="folder or bucket with <identity>/<photo>")
    parser.add_argument("protected", metavar="PROTECTED", help="the same protected, or an OUTPUT")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, *.safetensors")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute in bfloat16: three times as fast on CPUs that have it",
    )
    parser.set_defaults(cooldown=0.4, threads=1, log_every=25, save_every=200)
    arguments, _ = begin_stage(parser, command_line)
    if arguments.out.suffix != ".safetensors":
        parser.error(f"OUT: expected a file *.safetensors, got {arguments.out}")
    try:
        require_trees(arguments.clean, [arguments.protected])
        detector = load_face_detector(FaceDetectorSettings(min_score=MIN_FACE_SCORE))
        pairs = read_pairs(arguments.clean, arguments.protected, detector)
    except (PipelineError, DladiffError) as error:
        print(f"remover: {error}", file=sys.stderr)
        return 2
    people = len({pair.identity for pair in pairs.held_out})
    _say(
        f"{len(pairs.training)} pairs to learn from, {len(pairs.held_out)} held out, of "
        f"{format_count(people, 'other person', 'other people')}; photos left out: "
        f"{counted(pairs.left_out)}"
    )
    stage = begin_training(arguments, pairs)
    while stage.running():
        take_step(stage, pairs.training)
        if stage.step % arguments.save_every == 0:
            save_remover(stage.averaged, arguments.out)
            _say(f"step {stage.step}: {_measured(stage, pairs.held_out[:REPORTED_PAIRS])}")
    stage.save()
    save_remover(stage.averaged, arguments.out)
    _say(f"end, step {stage.step}: {_measured(stage, pairs.held_out)}")
    return 0


def begin_training(arguments: argparse.Namespace, pairs: Pairs) -> TrainingStage:
    """A stage from its start, or from the checkpoint beside OUT where it is of the same pairs."""
    out: Path = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    # Other pairs hold other people out, whom an older checkpoint may have learnt.
    arguments.build, arguments.work = f"remover of {pairs.digest}", out.parent
    model = Remover().to(arguments.device).to(memory_format=torch.channels_last)
    name = f"{out.stem}.{pairs.digest[:8]}"
    return TrainingStage(name, model, arguments, learning_rate=arguments.learning_rate)


def _measured(stage: TrainingStage, pairs: Sequence[Pair]) -> HeldOut:
    assert isinstance(stage.averaged, Remover)
    return measure(stage.averaged, pairs)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
