"""What a method needs, on the stand-in accelerator, with a published model in place of ours.

Recognisers, detector and LPIPS are the package's own; diffusion models have the published
configurations and no values.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DDPMScheduler

from benchmarks.published_models import (
    AUTOENCODERS,
    frozen,
    sd15_text_encoder,
    sd15_unet,
    sd15_vae,
    write_tokenizer,
)
from benchmarks.stand_in import StandIn, device
from dladiff.accelerator import Precision
from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.diffusion.checkpoint import DiffusionModel, embed_prompt
from dladiff.diffusion.memory import rows_on, unet_rows_on


def autoencoder(name: str, precision: Precision = "float32") -> Autoencoder:
    """A published autoencoder on the device; within a ``StandIn``."""
    published = AUTOENCODERS[name]
    vae = _built(published.build, precision)
    rows = rows_on(device(), vae, published.resolution, precision)
    return Autoencoder(
        vae=vae, resolution=published.resolution, precision=precision, rows_per_pass=rows
    )


def stable_diffusion(precision: Precision = "float32") -> DiffusionModel:
    """Stable Diffusion 1.5 on the device; within a ``StandIn``."""
    unet, text = _built(sd15_unet, "float32"), _built(sd15_text_encoder, "float32")
    vae = _built(sd15_vae, precision)
    with TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder) / "tokenizer")
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return DiffusionModel(
        vae=vae,
        resolution=512,
        precision=precision,
        rows_per_pass=rows_on(device(), vae, 512, precision),
        unet_rows_per_pass=unet_rows_on(device(), unet, 64),
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        noise_scheduler=schedule,
        prompt_embeds=embed_prompt("a photo of sks person", tokenizer, text),
        alphas_cumprod=schedule.alphas_cumprod.to(device()),
    )


def _built(build: Callable[[], Any], precision: Precision) -> Any:
    """A part as ``placed`` leaves it: fake parameters cannot be cast once they are a module's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    try:
        with torch.device(device()):
            return frozen(build())
    finally:
        torch.set_default_dtype(before)


@contextmanager
def one_thread() -> Iterator[StandIn]:
    """A stand-in to work in; whatever is real computes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with StandIn() as stand_in:
            yield stand_in
    finally:
        torch.set_num_threads(before)
