"""Finishes the identity adapter on the frozen UNet, with face-recognition losses on its samples.

``python -m tools.training.train_adapter --work ../work --minutes 25 --cooldown 0.4`` goes on from
the adapter that ``tools.training.train_unet`` trained along, and changes nothing but the adapter.

The noise-prediction loss alone teaches an adapter nearly nothing at this size: at low noise the
latents show the person already, at high noise the loss hardly notices who it is. So a few DDIM
steps are sampled from pure noise and the recognition loss of the finished image is propagated
through them (as in DRaFT, Clark et al. 2023, arXiv:2309.17400, section 4). Several recognisers on
moved and softened crops keep the adapter from merely deceiving one of them, and telling the
people of a batch apart (InfoNCE) keeps it from raising the likeness to everybody.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from dladiff.encoders.students import STUDENT_NAMES, load_student
from tools.training.cache_latents import SCALING_FACTOR
from tools.training.face_alignment import recognition_crop
from tools.training.face_data import to_images
from tools.training.identity_adapter import adapter_modules
from tools.training.recognition import load_sface
from tools.training.train_unet import (
    Denoiser,
    PortraitBatches,
    load_trained_denoiser,
    min_snr_weights,
    sampling_scheduler,
)
from tools.training.training_stage import TrainingStage, begin_stage, stage_arguments


def sample_latents(
    denoiser: Denoiser, noise: Tensor, input_ids: Tensor, identity_embeds: Tensor, num_steps: int
) -> Tensor:
    """Samples latents by DDIM without guidance, differentiably in the adapter.

    Args:
        denoiser: UNet with adapter.
        noise: Initial latents (batch, latent_channels, 16, 16).
        input_ids: Captions (batch, MAX_TOKENS).
        identity_embeds: Face embeddings (batch, 128).
        num_steps: Sampling steps.

    Returns:
        Clean latents (batch, latent_channels, 16, 16).
    """
    scheduler = sampling_scheduler()
    scheduler.set_timesteps(num_steps)
    latents = noise
    for timestep in scheduler.timesteps.tolist():
        times = torch.full((len(noise),), timestep, device=noise.device)
        prediction = denoiser(latents, times, input_ids, identity_embeds)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def varied_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves faces128 images by up to 3 pixels, mirrors and softens half of them, and crops them.

    Args:
        images: (batch, 3, 128, 128) in [0, 1].
        generator: Draws the variations.

    Returns:
        ArcFace crops (batch, 3, 112, 112) in [0, 1].
    """
    dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
    images = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    images = images[..., 3 + dy : 131 + dy, 3 + dx : 131 + dx]
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(-1)
    if torch.rand((), generator=generator) < 0.5:
        images = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return recognition_crop(images)


def identity_loss(embeds: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Likeness to the own person, and how surely that person is picked out of the batch.

    Args:
        embeds: Unit embeddings of generated faces, (batch, width).
        targets: Unit embeddings of the people they should show, (batch, width).

    Returns:
        Loss (1 - own cosine + InfoNCE at temperature 0.1), mean cosine to the own person and to
        the others of the batch.
    """
    cosines = embeds @ targets.T
    people = torch.arange(len(embeds), device=embeds.device)
    own = cosines.diagonal().mean()
    others = (cosines.sum() - cosines.diagonal().sum()) / max(1, cosines.numel() - len(people))
    return 1 - own + functional.cross_entropy(cosines / 0.1, people), own, others


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--grey-weight", type=float, default=0.35)
    parser.add_argument("--identity-weight", type=float, default=0.15)
    parser.add_argument("--sampling-steps", type=int, default=6, help="DDIM steps of a sample")
    parser.add_argument("--sampled", type=int, default=8, help="images sampled in every step")
    parser.set_defaults(batch_size=10, save_every=50, log_every=10, warmup_steps=20)
    arguments, device = begin_stage(parser)

    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(device)
    vae.eval().requires_grad_(False)
    denoiser = load_trained_denoiser(arguments.work / "denoiser.pt", arguments.build).to(device)
    adapter = adapter_modules(denoiser.unet).requires_grad_(True)
    recognisers = {"sface": load_sface(device).embed}
    recognisers |= {name: load_student(name).to(device) for name in STUDENT_NAMES}
    stage = TrainingStage(
        "adapter", adapter, arguments, learning_rate=arguments.learning_rate, ema_decay=0.98
    )
    batches = PortraitBatches(
        arguments.work, arguments.batch_size, arguments.grey_weight, [arguments.seed, stage.step]
    )
    loss_weights = min_snr_weights(batches.noise_scheduler).to(device)
    portraits = np.load(arguments.work / "portraits.npz")["images"]
    generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + stage.step)

    while stage.running():
        batch = batches.draw().to(device)
        prediction = denoiser(batch.noisy, batch.timesteps, batch.input_ids, batch.identity_embeds)
        errors = (prediction - batch.noise).square().mean(dim=(1, 2, 3))
        denoising = (errors * loss_weights[batch.timesteps]).mean()
        denoising.backward()

        chosen = torch.nonzero(batch.identity_embeds.abs().sum(dim=1) > 0).flatten()
        chosen = chosen[: arguments.sampled]
        latents = sample_latents(
            denoiser,
            torch.randn((len(chosen), *batch.noise.shape[1:]), generator=generator).to(device),
            batch.input_ids[chosen],
            batch.identity_embeds[chosen],
            arguments.sampling_steps,
        )
        images = (vae.decode(latents / SCALING_FACTOR).sample / 2 + 0.5).clamp(0, 1)
        crops = varied_crops(images, generator)
        rows = batch.told_rows[chosen].cpu().numpy()
        told = recognition_crop(to_images(portraits[rows]).to(device))
        losses, shown = [], {"denoising": denoising.detach()}
        for name, embed in recognisers.items():
            with torch.no_grad():
                target = embed(told)
            loss, own, others = identity_loss(embed(crops), target)
            losses.append(loss)
            shown |= {name: own.detach(), f"{name}_others": others.detach()}
        stage.update(arguments.identity_weight * torch.stack(losses).mean(), **shown)
    stage.save()


if __name__ == "__main__":
    main()
