"""Trains a reference autoencoder: 128x128 faces to 16x16 latents and back.

``python -m tools.training.train_autoencoder --work ../work --minutes 40 --cooldown 0.3``; with
``--identity-weight 0.1`` it also keeps SFace's embedding of the face, which is slower.
"""

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from dladiff.quality import LearnedPerceptualDistance
from tools.training.builds import BUILDS, Build
from tools.training.face_alignment import recognition_crop
from tools.training.face_data import FaceSet, load_faces, save_sheet, to_images
from tools.training.lpips_alex import load_lpips_alex
from tools.training.recognition import load_sface
from tools.training.training_stage import TrainingStage, begin_stage, stage_arguments

LPIPS_WEIGHT = 0.4
KL_WEIGHT = 1e-6


def build_autoencoder(build: Build) -> AutoencoderKL:
    """Returns the untrained autoencoder, 8x down."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=build.autoencoder_widths,
        layers_per_block=1,
        latent_channels=build.latent_channels,
        norm_num_groups=build.autoencoder_groups,
        sample_size=128,
        scaling_factor=0.18215,
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors half of the images and varies exposure, contrast and colour of a third of them."""
    count = images.shape[0]
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
    change = (torch.rand(count, 1, 1, 1, generator=generator) < 0.33).float()
    gain = 1 + change * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.2
    offset = change * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5) * 0.2
    contrast = 1 + change * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5) * 0.4
    mean = images.mean(dim=(2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * gain + offset).clamp(0, 1)


def training_batches(
    faces: FaceSet, batch_size: int, grey_share: float, seed: int, step: int
) -> Iterator[Tensor]:
    """Draws augmented batches, NCHW in [0, 1], without end; held-out identities never come.

    Args:
        faces: All portraits.
        batch_size: Images of a batch.
        grey_share: Expected share of grey portraits.
        seed: Of all draws, together with ``step``.
        step: At which a resumed stage goes on.
    """
    colour = np.flatnonzero(faces.colour & ~faces.held_out)
    grey = np.flatnonzero(~faces.colour & ~faces.held_out)
    print(f"{len(colour)} colour, {len(grey)} grey", flush=True)
    random = np.random.default_rng([seed, step])
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    while True:
        from_grey = random.random(batch_size) < grey_share
        rows = np.where(
            from_grey, random.choice(grey, batch_size), random.choice(colour, batch_size)
        )
        yield augment(to_images(faces.images[rows]), generator)


def unseen_portraits(faces: FaceSet) -> Tensor:
    """Returns the colour portraits that are in no training, NCHW in [0, 1]."""
    return to_images(faces.images[np.flatnonzero(faces.colour & faces.held_out)])


@torch.no_grad()
def report(
    model: AutoencoderKL, images: Tensor, lpips: LearnedPerceptualDistance
) -> tuple[Tensor, str]:
    """Reconstructs held-out images (posterior mean) and says how well."""
    parts = [
        model.decode(model.encode(part * 2 - 1).latent_dist.mean).sample
        for part in images.split(16)  # type: ignore[no-untyped-call]
    ]
    decoded = torch.cat(parts)
    reconstruction = ((decoded + 1) / 2).clamp(0, 1).mul(255).round().div(255)
    error = (reconstruction - images).square().mean(dim=(1, 2, 3))
    psnr = (-10 * error.log10()).mean()
    distance = lpips(reconstruction, images).mean()
    return reconstruction, f"held-out psnr {psnr:.2f} lpips {distance:.4f}"


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--grey-share", type=float, default=0.15, help="share of grey portraits")
    parser.add_argument("--identity-weight", type=float, default=0.0)
    parser.add_argument("--eval-every", type=int, default=500)
    arguments, device = begin_stage(parser)

    faces = load_faces(arguments.data)
    unseen = unseen_portraits(faces).to(device)
    lpips = load_lpips_alex().to(device)
    recogniser = load_sface(device)
    model = build_autoencoder(BUILDS[arguments.build]).to(device)
    stage = TrainingStage("autoencoder", model, arguments, learning_rate=arguments.learning_rate)
    batches = training_batches(
        faces, arguments.batch_size, arguments.grey_share, arguments.seed, stage.step
    )

    while stage.running():
        images = next(batches).to(device)
        pixel_values = images * 2 - 1
        posterior = model.encode(pixel_values).latent_dist
        decoded = model.decode(posterior.sample()).sample
        pixel_loss = functional.l1_loss(decoded, pixel_values)
        perceptual_loss = lpips(decoded / 2 + 0.5, images).mean()
        kl = posterior.kl().mean()
        loss = pixel_loss + LPIPS_WEIGHT * perceptual_loss + KL_WEIGHT * kl
        identity_loss = torch.zeros((), device=device)
        if arguments.identity_weight:
            half = arguments.batch_size // 2
            target = recogniser.embed(recognition_crop(images[:half]))
            embeds = recogniser.embed(recognition_crop(decoded[:half] / 2 + 0.5))
            identity_loss = 1 - (embeds * target).sum(dim=1).mean()
            loss = loss + arguments.identity_weight * identity_loss
        shown = {"identity": identity_loss.detach()}
        stage.update(
            loss, **shown, l1=pixel_loss.detach(), lpips=perceptual_loss.detach(), kl=kl.detach()
        )
        if stage.step % arguments.eval_every == 0:
            print(f"step {stage.step} {report(stage.averaged, unseen[:32], lpips)[1]}", flush=True)
    stage.save()
    reconstruction, line = report(stage.averaged, unseen, lpips)
    print(f"end, step {stage.step}: {line}", flush=True)
    pairs = torch.stack([unseen[:32], reconstruction[:32]], dim=1).flatten(0, 1)
    save_sheet(pairs, arguments.work / "autoencoder.png")


if __name__ == "__main__":
    main()
