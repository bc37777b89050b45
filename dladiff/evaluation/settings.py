"""What an attacker does with photos: the settings of attacks, and the names. Imports no torch.

Attack settings were tuned to leak most on clean photos and are frozen before any protection is
measured: a weak attack would flatter every protection.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from dladiff.config import Settings

AttackName = Literal["dreambooth", "lora", "textual_inversion", "zero_shot", "untouched"]
"""``untouched`` trains nothing: what the model shows before any customisation, the floor."""
HandlingName = Literal[
    "none",
    "jpeg75",
    "half",
    "jpeg75_half",
    "blur",
    "noise",
    "noisy_upscale",
    "clean_mix",
    "sdedit",
    "gridpure",
    "unprotect",
]
"""What happens to photos between their publication and the attack, see ``handlings``."""
ViewName = Literal["template", "whole", "face"]
"""How an attacker crops: the checkpoint's face template, the whole photo, a square of the face."""

ATTACKS: tuple[AttackName, ...] = get_args(AttackName)
HANDLINGS: tuple[HandlingName, ...] = get_args(HandlingName)
PURIFICATIONS: tuple[HandlingName, ...] = ("sdedit", "gridpure")
"""Handlings that act on the attacker's crops, with the checkpoint at hand."""
REMOVAL: HandlingName = "unprotect"
"""The handling that needs a trained remover, see ``remover``."""

XL_LIMITS = (
    "Stable Diffusion XL is attacked by zero_shot without purification only: give --attack "
    "zero_shot and other handlings than sdedit and gridpure"
)


def works_on_xl(name: AttackName, handling: HandlingName) -> bool:
    """Whether an attack can be done on Stable Diffusion XL: nothing there is trained."""
    return name in ("zero_shot", "untouched") and handling not in PURIFICATIONS


class AttackSettings(Settings):
    """How an attacker customises a checkpoint and samples from it."""

    name: AttackName
    num_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps; 0 for attacks that train nothing."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    batch_size: Annotated[int, Field(ge=1)] = 4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup_steps: Annotated[int, Field(ge=1)] = 20
    """Steps over which the learning rate rises linearly."""
    lora_rank: Annotated[int, Field(ge=1)] = 16
    train_text_encoder: bool = False
    """``dreambooth``: also train the text encoder."""
    stops: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.6, 1.0)
    """Shares of the steps after which images are generated; the stop that leaks most counts, as
    an attacker would keep the best of several checkpoints."""
    prompt: str = "a photo of sks person"
    instance_word: str = "sks"
    """``textual_inversion``: the word of the prompt whose embedding is learnt."""
    num_images: Annotated[int, Field(ge=1)] = 16
    images_per_batch: Annotated[int, Field(ge=1)] = 16
    num_inference_steps: Annotated[int, Field(ge=1)] = 25
    guidance_scale: Annotated[float, Field(ge=0)] = 2.0
    adapter_scale: Annotated[float, Field(ge=0)] = 1.0
    """``zero_shot``: weight of the adapter's attention."""
    seed: int = 0


_REFERENCE_MODEL: dict[AttackName, AttackSettings] = {
    "untouched": AttackSettings(name="untouched", stops=(1.0,)),
    "dreambooth": AttackSettings(name="dreambooth", num_steps=200, learning_rate=1e-4),
    "lora": AttackSettings(name="lora", num_steps=300, learning_rate=2e-3),
    "textual_inversion": AttackSettings(
        name="textual_inversion", num_steps=300, learning_rate=5e-2, weight_decay=0.0
    ),
    "zero_shot": AttackSettings(name="zero_shot", prompt="a photo of a person", stops=(1.0,)),
}
_STABLE_DIFFUSION: dict[AttackName, dict[str, object]] = {
    "untouched": {},
    "dreambooth": {"num_steps": 400, "learning_rate": 5e-6},
    "lora": {"num_steps": 800, "learning_rate": 1e-4},
    "textual_inversion": {"num_steps": 3000, "learning_rate": 5e-3},
    "zero_shot": {},
}
"""What differs for checkpoints of Stable Diffusion's size."""


def attack_settings(name: AttackName, aligned_faces: bool) -> AttackSettings:
    """The frozen settings of an attack.

    Args:
        name: Which one.
        aligned_faces: Whether the checkpoint is a small model of aligned faces, as the embedded
            one. Its settings were tuned on clean photos; those for Stable Diffusion are the usual
            ones of its training scripts (DreamBooth as in the paper: 400 steps of 4, 5e-6) and
            have not been tuned here.
    """
    settings = _REFERENCE_MODEL[name]
    if aligned_faces:
        return settings
    sampling = {"guidance_scale": 7.5, "num_inference_steps": 50, "images_per_batch": 4}
    return settings.model_copy(update={**sampling, **_STABLE_DIFFUSION[name]})
