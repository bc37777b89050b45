"""What every training stage shares: a learning-rate plan, averaged weights, resume and a log.

A stage may end at any time (``--minutes``, or SIGTERM) and go on later from its checkpoint; the
cool-down is asked for by flag, so a stage that ran at constant rate can be finished when wanted.
"""

import argparse
import copy
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.training.builds import BUILDS, BuildName, check_build


def load_averaged(module: nn.Module, path: Path, build: BuildName) -> None:
    """Gives a module the averaged weights of a stage's checkpoint.

    Raises:
        ValueError: If the checkpoint is of another build.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    check_build(state, path, build)
    module.load_state_dict(state["averaged"])


def stage_arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every stage of the reference models understands."""
    parser = plan_arguments(description)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data folder")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, logs, sheets")
    parser.add_argument("--build", choices=sorted(BUILDS), default="faces-128", help="which model")
    return parser


def plan_arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of any training: how long, how fast, where."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock time of this run")
    parser.add_argument("--steps", type=int, help="end at this step, in place of --minutes")
    parser.add_argument(
        "--cooldown", type=float, default=0.0, help="last part of the run with falling rate, 0..1"
    )
    parser.add_argument("--warmup-steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250, help="steps between checkpoints")
    return parser


def begin_stage(
    parser: argparse.ArgumentParser, command_line: Sequence[str] | None = None
) -> tuple[argparse.Namespace, torch.device]:
    """Reads the command line and sets what it says of threads, seed and device."""
    arguments = parser.parse_args(command_line)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    return arguments, torch.device(arguments.device)


class TrainingStage:
    """Steps an optimiser under a time plan and keeps everything needed to resume.

    Args:
        name: Stem of the checkpoint file in ``arguments.work``.
        model: Module whose trainable parameters are optimised.
        arguments: Parsed options of :func:`stage_arguments`.
        learning_rate: Constant rate between warm-up and cool-down.
        ema_decay: Decay of the averaged weights once warmed up.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        arguments: argparse.Namespace,
        *,
        learning_rate: float,
        ema_decay: float = 0.999,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.arguments = arguments
        self.model = model
        self.learning_rate = learning_rate
        self.ema_decay = ema_decay
        self.max_grad_norm = max_grad_norm
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=learning_rate,
            betas=(0.9, 0.99),
            weight_decay=weight_decay,
            fused=True,
        )
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        self.step = 0
        self.trained_minutes = 0.0
        self.path: Path = arguments.work / f"{name}.pt"
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._stop = False
        self._resume()
        self._first_step = self.step
        self._started = time.monotonic()
        self._last = self._started
        signal.signal(signal.SIGTERM, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self._stop = True

    @property
    def elapsed_minutes(self) -> float:
        """Wall-clock minutes of this run."""
        return (time.monotonic() - self._started) / 60

    @property
    def progress(self) -> float:
        """Share of this run that is done, by its steps where they are said, else by its time."""
        last: int | None = self.arguments.steps
        minutes: float = self.arguments.minutes
        if last is None:
            return self.elapsed_minutes / minutes
        return 1 - (last - self.step) / max(last - self._first_step, 1)

    def running(self) -> bool:
        """Whether another step should be taken."""
        return not self._stop and self.progress < 1

    def rate(self) -> float:
        """Learning rate now: linear warm-up, constant, then 1 - sqrt over the cool-down."""
        rate: float = self.learning_rate * min(1.0, (self.step + 1) / self.arguments.warmup_steps)
        cooldown = self.arguments.cooldown
        if cooldown > 0:
            done = (self.progress - (1 - cooldown)) / cooldown
            if done > 0:
                rate *= 1 - min(done, 1.0) ** 0.5
        return rate

    def update(self, loss: torch.Tensor, **shown: torch.Tensor) -> None:
        """Takes one optimiser step on ``loss`` and logs the means of ``shown``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            print(f"step {self.step}: non-finite gradient, skipped", flush=True)
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(
                self.averaged.parameters(), self.model.parameters(), strict=True
            ):
                if value.requires_grad:
                    average.lerp_(value, 1 - decay)
            for kept, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                kept.copy_(buffer)
        self.step += 1
        self._log({"loss": loss.detach(), "grad": norm, **shown})
        if self.step % self.arguments.save_every == 0:
            self.save()

    def _log(self, values: dict[str, torch.Tensor]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)
        self._counted += 1
        if self.step % self.arguments.log_every:
            return
        now = time.monotonic()
        means = " ".join(f"{key} {total / self._counted:.4f}" for key, total in self._sums.items())
        seconds = (now - self._last) / self._counted
        minutes = self.trained_minutes + self.elapsed_minutes
        print(
            f"step {self.step} min {minutes:.1f} rate {self.rate():.1e} {means} "
            f"s/step {seconds:.2f}",
            flush=True,
        )
        self._sums, self._counted, self._last = {}, 0, now

    def save(self) -> None:
        """Writes the checkpoint, replacing the former one at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".partial")
        torch.save(
            {
                "build": self.arguments.build,
                "step": self.step,
                "minutes": self.trained_minutes + self.elapsed_minutes,
                "model": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            temporary,
        )
        temporary.replace(self.path)

    def _resume(self) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location=self.arguments.device, weights_only=True)
        check_build(state, self.path, self.arguments.build)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.trained_minutes = state["step"], state["minutes"]
        print(f"resumed {self.path} at step {self.step}", flush=True)
