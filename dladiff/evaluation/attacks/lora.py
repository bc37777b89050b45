"""LoRA (Hu et al. 2022, arXiv:2106.09685) of the whole UNet, by peft."""

import torch
from peft import LoraConfig

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, copy_of
from dladiff.evaluation.settings import AttackSettings

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TARGETS += ["proj_in", "proj_out", "conv1", "conv2"]
"""Attention, feed-forward and convolutions: attention alone learns half as much of a person."""


def begin_lora(diffusion: DiffusionModel, settings: AttackSettings) -> Customised:
    """A copy of the UNet with an adapter, which alone learns."""
    model = copy_of(diffusion, unet=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model.unet.add_adapter(
            LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_rank, target_modules=TARGETS)
        )
    model.weights = [weight for weight in model.unet.parameters() if weight.requires_grad]
    return model
