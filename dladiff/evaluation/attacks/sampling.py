"""Images of a customised checkpoint under its prompt, by diffusers' own pipeline."""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, prompt_embeds
from dladiff.evaluation.attacks.zero_shot import ToldFaces, tell
from dladiff.evaluation.settings import AttackSettings
from dladiff.image_values import Images


def generate(
    model: Customised,
    diffusion: DiffusionModel,
    settings: AttackSettings,
    faces: ToldFaces | None = None,
) -> Images:
    """Samples ``settings.num_images`` images, in [0, 1] on the CPU.

    The same seed gives the same starting noise whatever was learnt, so that conditions differ by
    the model alone.

    Args:
        model: What was customised.
        diffusion: The checkpoint it was made of.
        settings: Prompt, guidance, steps, number, seed.
        faces: Told to an adapter: image i is told face i modulo their number.
    """
    sampler = _sampler(model, diffusion)
    if faces is not None:
        sampler.set_ip_adapter_scale(settings.adapter_scale)
    start = torch.randn(
        settings.num_images,
        diffusion.unet.config.in_channels,
        diffusion.resolution // diffusion.vae_scale_factor,
        diffusion.resolution // diffusion.vae_scale_factor,
        generator=torch.Generator().manual_seed(settings.seed + 1),
    ).to(diffusion.device)
    with torch.no_grad():
        positive = prompt_embeds(model, diffusion, settings.prompt)
        negative = prompt_embeds(model, diffusion, "")
    images: list[tuple[list[int], Images]] = []
    for rows, face in _batches(settings, 0 if faces is None else len(faces)):
        told = (
            {}
            if faces is None
            else {
                "ip_adapter_image_embeds": [
                    tell(model, faces, face, len(rows), settings.guidance_scale)
                ]
            }
        )
        with torch.no_grad(), diffusion.autocast():
            made = sampler(
                prompt_embeds=positive.expand(len(rows), -1, -1),
                negative_prompt_embeds=negative.expand(len(rows), -1, -1),
                latents=start[torch.tensor(rows)],
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                output_type="pt",
                **told,
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


def _sampler(model: Customised, diffusion: DiffusionModel) -> StableDiffusionPipeline:
    # What Stable Diffusion's own sampler configurations say, and old checkpoints leave out.
    scheduler = DDIMScheduler.from_config(
        diffusion.noise_scheduler.config, steps_offset=1, clip_sample=False
    )
    sampler = StableDiffusionPipeline(
        vae=diffusion.vae,
        text_encoder=model.text_encoder,
        tokenizer=diffusion.tokenizer,
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    sampler.set_progress_bar_config(disable=True)
    return sampler
