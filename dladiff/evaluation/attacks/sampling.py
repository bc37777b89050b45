"""Images of a customised checkpoint under its prompt, by diffusers' own pipeline."""

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, prompt_embeds
from dladiff.evaluation.attacks.zero_shot import FaceAdapter, ToldFaces, tell
from dladiff.evaluation.settings import AttackSettings
from dladiff.image_values import Images


def generate(
    model: Customised,
    diffusion: DiffusionModel,
    settings: AttackSettings,
    told: tuple[FaceAdapter, ToldFaces] | None = None,
) -> Images:
    """Samples ``settings.num_images`` images, in [0, 1] on the CPU.

    The same seed gives the same starting noise whatever was learnt, so that conditions differ by
    the model alone.

    Args:
        model: What was customised.
        diffusion: The checkpoint it was made of.
        settings: Prompt, guidance, steps, number, seed.
        told: An adapter and the faces for it: image i is told face i modulo their number.
    """
    sampler = _sampler(model, diffusion, None if told is None else told[0])
    if told is not None:
        sampler.set_ip_adapter_scale(settings.adapter_scale)
    start = torch.randn(
        settings.num_images,
        diffusion.unet.config.in_channels,
        diffusion.resolution // diffusion.vae_scale_factor,
        diffusion.resolution // diffusion.vae_scale_factor,
        generator=torch.Generator().manual_seed(settings.seed + 1),
    ).to(diffusion.device)
    with torch.no_grad():
        prompt = _prompt(sampler, model, diffusion, settings)
    side = diffusion.resolution
    size = {} if diffusion.second_text is None else {"height": side, "width": side}
    images: list[tuple[list[int], Images]] = []
    for rows, face in _batches(settings, 0 if told is None else len(told[1])):
        with torch.no_grad():
            face_arguments = {} if told is None else tell(model, *told, face, len(rows), settings)
        with torch.no_grad(), diffusion.autocast():
            made = sampler(
                **{name: one.expand(len(rows), *one.shape[1:]) for name, one in prompt.items()},
                latents=start[torch.tensor(rows)],
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                output_type="pt",
                **size,
                **face_arguments,
            ).images
        images.append((rows, made.float().cpu()))
    order = torch.tensor([row for rows, _ in images for row in rows])
    return torch.cat([made for _, made in images])[order.argsort()]


def _batches(settings: AttackSettings, num_faces: int) -> list[tuple[list[int], int]]:
    """Rows that are sampled together; one face per batch, since diffusers tells all the same."""
    batches = []
    for face in range(max(1, num_faces)):
        rows = list(range(face, settings.num_images, max(1, num_faces)))
        for first in range(0, len(rows), settings.images_per_batch):
            batches.append((rows[first : first + settings.images_per_batch], face))
    return batches


def _prompt(
    sampler: Any, model: Customised, diffusion: DiffusionModel, settings: AttackSettings
) -> dict[str, Tensor]:
    """The prompt and what stands for none, as arguments of the sampler for one image."""
    if diffusion.second_text is None:
        return {
            "prompt_embeds": prompt_embeds(model, diffusion, settings.prompt),
            "negative_prompt_embeds": prompt_embeds(model, diffusion, ""),
        }
    names = [f"{sign}{kind}prompt_embeds" for kind in ("", "pooled_") for sign in ("", "negative_")]
    embeds = sampler.encode_prompt(settings.prompt, device=diffusion.device)
    return dict(zip(names, embeds, strict=True))


def _sampler(model: Customised, diffusion: DiffusionModel, adapter: FaceAdapter | None) -> Any:
    # What Stable Diffusion's own sampler configurations say, and old checkpoints leave out.
    scheduler = DDIMScheduler.from_config(
        diffusion.noise_scheduler.config, steps_offset=1, clip_sample=False
    )
    parts: dict[str, Any] = {
        "vae": diffusion.vae,
        "text_encoder": model.text_encoder,
        "tokenizer": diffusion.tokenizer,
        "unet": model.unet,
        "scheduler": scheduler,
    }
    net = None if adapter is None else adapter.identity_net
    second = diffusion.second_text
    if second is not None:
        parts |= {"text_encoder_2": second.encoder, "tokenizer_2": second.tokenizer}
        parts["add_watermarker"] = False
    sampler: Any
    if second is None:
        off: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
        sampler = StableDiffusionPipeline(**parts, **off, requires_safety_checker=False)
    elif net is None:
        sampler = StableDiffusionXLPipeline(**parts)
    else:
        sampler = StableDiffusionXLControlNetPipeline(**parts, controlnet=net)
    sampler.set_progress_bar_config(disable=True)
    return sampler
