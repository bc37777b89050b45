"""Trains the autoencoder's decoder further while its encoder, and so every latent, stays.

``python -m tools.training.refine_decoder --work ../work --minutes 18 --cooldown 0.4`` goes on from
``vae/`` and writes it again: what was trained on its latents (the UNet, the adapter) remains valid.
"""

import copy

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from tools.training.face_data import load_faces
from tools.training.lpips_alex import load_lpips_alex
from tools.training.train_autoencoder import report, training_batches, unseen_portraits
from tools.training.training_stage import TrainingStage, begin_stage, stage_arguments


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--lpips-weight", type=float, default=1.0)
    parser.add_argument("--grey-share", type=float, default=0.1, help="share of grey portraits")
    parser.add_argument("--eval-every", type=int, default=200)
    arguments, device = begin_stage(parser)

    faces = load_faces(arguments.data)
    unseen = unseen_portraits(faces).to(device)
    lpips = load_lpips_alex().to(device)

    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(device)
    vae.requires_grad_(False)
    decoding = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    stage = TrainingStage("decoder", decoding, arguments, learning_rate=arguments.learning_rate)
    batches = training_batches(
        faces, arguments.batch_size, arguments.grey_share, arguments.seed, stage.step
    )

    refined = copy.deepcopy(vae).requires_grad_(False)
    refined.post_quant_conv, refined.decoder = stage.averaged.children()

    print(f"step {stage.step}: {report(refined, unseen, lpips)[1]}", flush=True)
    while stage.running():
        images = next(batches).to(device)
        pixel_values = images * 2 - 1
        with torch.no_grad():
            latents = vae.encode(pixel_values).latent_dist.sample()
        decoded = vae.decode(latents).sample
        pixel_loss = functional.l1_loss(decoded, pixel_values)
        perceptual_loss = lpips(decoded / 2 + 0.5, images).mean()
        stage.update(
            pixel_loss + arguments.lpips_weight * perceptual_loss,
            l1=pixel_loss.detach(),
            lpips=perceptual_loss.detach(),
        )
        if stage.step % arguments.eval_every == 0:
            print(f"step {stage.step} {report(refined, unseen, lpips)[1]}", flush=True)
    stage.save()
    print(f"end, step {stage.step}: {report(refined, unseen, lpips)[1]}", flush=True)
    refined.save_pretrained(arguments.work / "vae", safe_serialization=True)


if __name__ == "__main__":
    main()
