"""Which reference model a training stage builds: the one that protects, or the attacker's.

The second differs in latent channels, widths and depth (and, by ``--seed``, in every draw), so that
what holds against it does not hold by kinship. It protects nothing and only attacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

BuildName = Literal["faces-128", "attacker-128"]


@dataclass(frozen=True)
class Build:
    """Sizes of one latent diffusion model of 128 px faces with 16x16 latents."""

    latent_channels: int
    autoencoder_widths: tuple[int, int, int, int]
    autoencoder_groups: int
    unet_widths: tuple[int, int, int]
    attention_heads: tuple[int, int, int]


BUILDS: dict[BuildName, Build] = {
    "faces-128": Build(8, (32, 32, 64, 128), 16, (64, 128, 256), (2, 4, 8)),
    "attacker-128": Build(4, (24, 40, 64, 96), 8, (64, 128, 192), (2, 4, 6)),
}


def check_build(state: Mapping[str, Any], path: Path, build: BuildName) -> None:
    """Refuses the checkpoint of a stage that trained another build.

    Args:
        state: What ``TrainingStage.save`` wrote; of before there were builds, it says nothing.
        path: Where it was read, for the message.
        build: The one that is asked for.

    Raises:
        ValueError: If the checkpoint is of another one.
    """
    stored = state.get("build", build)
    if stored != build:
        raise ValueError(f"{path} is of build {stored}: give --build {stored} or another --work")
