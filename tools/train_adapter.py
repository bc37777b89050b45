"""Finishes the identity adapter on the frozen UNet, with a face-recognition loss.

``python -m tools.train_adapter --work ../work --minutes 20 --cooldown 0.5`` goes on from the
adapter that ``tools.train_unet`` trained along, and changes nothing but the adapter.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from tools.cache_latents import SCALING_FACTOR
from tools.face_alignment import recognition_crop
from tools.identity_adapter import adapter_modules
from tools.recognition import load_sface
from tools.train_unet import PortraitBatches, load_trained_denoiser, min_snr_weights
from tools.training_stage import TrainingStage, stage_arguments


def predicted_clean(noisy: Tensor, prediction: Tensor, abar: Tensor) -> Tensor:
    """Returns the clean latents that a noise prediction implies; abar is (batch, 1, 1, 1)."""
    return (noisy - (1 - abar).sqrt() * prediction) / abar.sqrt()


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--grey-weight", type=float, default=0.35)
    parser.add_argument("--identity-weight", type=float, default=0.1)
    parser.add_argument("--identity-batch", type=int, default=6, help="decoded in every step")
    parser.add_argument("--identity-timesteps", type=int, default=500, help="decoded below this")
    parser.set_defaults(batch_size=24, save_every=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)

    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(device)
    vae.eval().requires_grad_(False)
    denoiser = load_trained_denoiser(arguments.work / "denoiser.pt").to(device)
    adapter = adapter_modules(denoiser.unet).requires_grad_(True)
    recogniser = load_sface(device)
    stage = TrainingStage("adapter", adapter, arguments, learning_rate=arguments.learning_rate)
    batches = PortraitBatches(
        arguments.work, arguments.batch_size, arguments.grey_weight, [arguments.seed, stage.step]
    )
    abar = batches.noise_scheduler.alphas_cumprod.to(device)
    loss_weights = min_snr_weights(batches.noise_scheduler).to(device)

    while stage.running():
        batch = batches.draw().to(device)
        prediction = denoiser(batch.noisy, batch.timesteps, batch.input_ids, batch.identity_embeds)
        errors = (prediction - batch.noise).square().mean(dim=(1, 2, 3))
        loss = (errors * loss_weights[batch.timesteps]).mean()

        told = batch.identity_embeds.abs().sum(dim=1) > 0
        early = torch.nonzero(told & (batch.timesteps < arguments.identity_timesteps)).flatten()
        chosen = early[torch.randperm(len(early), device=device)[: arguments.identity_batch]]
        scale = abar[batch.timesteps[chosen]].view(-1, 1, 1, 1)
        clean = predicted_clean(batch.noisy[chosen], prediction[chosen], scale)
        images = vae.decode(clean / SCALING_FACTOR).sample / 2 + 0.5
        embeds = recogniser.embed(recognition_crop(images.clamp(0, 1)))
        cosine = functional.cosine_similarity(embeds, batch.identity_embeds[chosen]).mean()
        stage.update(
            loss + arguments.identity_weight * (1 - cosine),
            denoising=loss.detach(),
            cosine=cosine.detach(),
        )
    stage.save()


if __name__ == "__main__":
    main()
