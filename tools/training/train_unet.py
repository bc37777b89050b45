"""Trains a reference UNet, its text encoder and an identity adapter on cached latents.

A share of every batch is also told the face embedding of the person (the same photo or another
portrait) through the adapter; the rest never sees the adapter, so that the UNet stands alone.

``python -m tools.training.train_unet --work ../work --minutes 60`` needs ``vae/`` and
``latents.npz`` of ``tools.training.cache_latents``. End it with ``--cooldown 1 --minutes 10``.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from tools.training.builds import BUILDS, Build, BuildName
from tools.training.captions import (
    MAX_TOKENS,
    TEMPLATES,
    build_tokenizer,
    portrait_attributes,
    write_caption,
)
from tools.training.face_data import save_sheet
from tools.training.identity_adapter import attach_adapter, set_adapter_scale, without_adapter
from tools.training.training_stage import TrainingStage, begin_stage, load_averaged, stage_arguments

SNR_GAMMA = 5.0
TEXT_WIDTH = 192

SHEET_PROMPTS = (
    "a photo of a person",
    "a photo of a man, smiling, blue background",
    "a photo of a woman, dark hair",
    "a dslr portrait of a man, born 1940s, light hair, glasses",
    "a black and white photo of a man, serious",
    "a picture of a woman, born 1960s, light hair, smiling",
    "a studio portrait of a man, born 1970s, dark hair, serious",
    "a photo of sks person",
)


class Denoiser(nn.Module):
    """UNet with an identity adapter, and text encoder, trained together."""

    def __init__(self, build: Build) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=build.latent_channels,
            out_channels=build.latent_channels,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=build.unet_widths,
            layers_per_block=1,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=build.attention_heads,
            norm_num_groups=32,
        )
        attach_adapter(self.unet)
        tokenizer = build_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        self.text_encoder = CLIPTextModel(config)

    def forward(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        input_ids: Tensor,
        identity_embeds: Tensor | None = None,
    ) -> Tensor:
        """Predicts the noise in latents.

        Args:
            noisy_latents: (batch, latent_channels, 16, 16).
            timesteps: (batch,).
            input_ids: (batch, MAX_TOKENS).
            identity_embeds: Unit face embeddings (batch, 128), zero for "nobody"; None leaves
                the adapter out.
        """
        set_adapter_scale(self.unet, 0.0 if identity_embeds is None else 1.0)
        if identity_embeds is None:
            identity_embeds = noisy_latents.new_zeros(len(noisy_latents), 128)
        prediction: Tensor = self.unet(
            noisy_latents,
            timesteps,
            self.text_encoder(input_ids)[0],
            added_cond_kwargs={"image_embeds": [identity_embeds.unsqueeze(1)]},
        ).sample
        return prediction


def sampling_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule for sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def training_scheduler() -> DDPMScheduler:
    """The same schedule for training."""
    return DDPMScheduler.from_config(sampling_scheduler().config)


def min_snr_weights(noise_scheduler: DDPMScheduler) -> Tensor:
    """Loss weight of each timestep for noise prediction (Hang et al. 2023, eq. 6)."""
    abar: Tensor = noise_scheduler.alphas_cumprod
    snr = abar / (1 - abar)
    return snr.clamp(max=SNR_GAMMA) / snr


def assemble_pipeline(vae: AutoencoderKL, denoiser: Denoiser) -> StableDiffusionPipeline:
    """Puts the parts into one pipeline without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=build_tokenizer(),
        unet=without_adapter(denoiser.unet),
        scheduler=sampling_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


def load_trained_denoiser(path: Path, build: BuildName) -> Denoiser:
    """Returns the averaged weights of the UNet's checkpoint, frozen."""
    denoiser = Denoiser(BUILDS[build])
    load_averaged(denoiser, path, build)
    return denoiser.eval().requires_grad_(False)


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    *,
    seed: int,
    num_steps: int = 25,
    guidance_scale: float = 3.0,
    **options: object,
) -> Tensor:
    """Returns one image per prompt, NCHW in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    images = pipeline(
        prompts,
        num_inference_steps=num_steps,
        guidance_scale=guidance_scale,
        generator=generator,
        output_type="pt",
        **options,
    ).images
    return torch.as_tensor(images).float().cpu()


class IdentityEmbeddings:
    """Chooses the face embedding that a portrait's adapter is told.

    Args:
        embeddings: Unit embeddings of all portraits, (num_portraits, width).
        people: Identity of each portrait.
    """

    def __init__(self, embeddings: NDArray[np.float32], people: NDArray[np.str_]) -> None:
        self.embeddings = embeddings
        rows_of: dict[str, list[int]] = {}
        for row, person in enumerate(people):
            rows_of.setdefault(str(person), []).append(row)
        self.same_person = [rows_of[str(person)] for person in people]

    def choose(
        self, rows: NDArray[np.int64], random: np.random.Generator, *, nobody: float = 0.08
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Chooses the portrait itself or, half of the time, another one of the person.

        Returns:
            The chosen rows and their embeddings, (len(rows), width); a share ``nobody`` of the
            embeddings is zero, which is what guidance contrasts with.
        """
        chosen = np.array(
            [random.choice(self.same_person[r]) if random.random() < 0.5 else r for r in rows]
        )
        keep = random.random((len(rows), 1)) >= nobody
        return chosen, self.embeddings[chosen] * keep.astype(np.float32)


class PortraitBatches:
    """Draws captioned, noised latents with face embeddings, the same for every stage.

    Args:
        work: Folder with ``portraits.npz`` and ``latents.npz``.
        batch_size: Latents in a batch.
        grey_weight: Probability of a grey portrait relative to one in colour.
        seed: Seeds of rows, captions, noise and timesteps.
    """

    def __init__(self, work: Path, batch_size: int, grey_weight: float, seed: list[int]) -> None:
        table = dict(np.load(work / "portraits.npz"))
        cached = np.load(work / "latents.npz")
        self.latents = torch.from_numpy(cached["latents"])
        self.row, self.template = cached["row"], cached["template"]
        self.attributes = [portrait_attributes(table, r) for r in range(len(table["identity"]))]
        self.identities = IdentityEmbeddings(table["sface"], table["identity"])
        self.batch_size = batch_size
        self.tokenizer = build_tokenizer()
        self.random = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(int(self.random.integers(2**62)))
        self.noise_scheduler = training_scheduler()
        weight = np.array([1.0 if self.attributes[r].colour else grey_weight for r in self.row])
        self.weight = weight / weight.sum()

    def draw(self, highest_timestep: int = 1000) -> "PortraitBatch":
        """Draws one batch; timesteps are stratified over [0, highest_timestep)."""
        count = self.batch_size
        rows = self.random.choice(len(self.latents), count, p=self.weight)
        captions = [
            write_caption(self.attributes[self.row[r]], TEMPLATES[self.template[r]], self.random)
            for r in rows
        ]
        clean = self.latents[torch.from_numpy(rows)].float()
        noise = torch.randn(clean.shape, generator=self.generator)
        parts = (torch.arange(count) + torch.rand(count, generator=self.generator)) / count
        timesteps = (parts * highest_timestep).long().clamp(max=highest_timestep - 1)
        told_rows, identity_embeds = self.identities.choose(self.row[rows], self.random)
        return PortraitBatch(
            clean=clean,
            noise=noise,
            timesteps=timesteps,
            noisy=self.noise_scheduler.add_noise(clean, noise, timesteps),
            input_ids=self.tokenizer(
                captions,
                padding="max_length",
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).input_ids,
            identity_embeds=torch.from_numpy(identity_embeds),
            told_rows=torch.from_numpy(told_rows),
        )


@dataclass
class PortraitBatch:
    """Tensors of one training step; the first axis is the batch."""

    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    noisy: Tensor
    input_ids: Tensor
    identity_embeds: Tensor
    told_rows: Tensor
    """Portraits that the embeddings are of."""

    def to(self, device: torch.device) -> "PortraitBatch":
        """Moves all tensors."""
        return PortraitBatch(**{key: value.to(device) for key, value in vars(self).items()})


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--grey-weight", type=float, default=0.35, help="weight of a grey portrait")
    parser.add_argument("--identity-share", type=float, default=0.5, help="told who it is")
    parser.add_argument("--sheet-every", type=int, default=500)
    parser.set_defaults(batch_size=16)
    arguments, device = begin_stage(parser)

    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").eval().requires_grad_(False)
    denoiser = Denoiser(BUILDS[arguments.build]).to(device)
    counts = {k: sum(p.numel() for p in m.parameters()) for k, m in denoiser.named_children()}
    stage = TrainingStage(
        "denoiser",
        denoiser,
        arguments,
        learning_rate=arguments.learning_rate,
        ema_decay=arguments.ema_decay,
    )
    batches = PortraitBatches(
        arguments.work, arguments.batch_size, arguments.grey_weight, [arguments.seed, stage.step]
    )
    loss_weights = min_snr_weights(batches.noise_scheduler).to(device)
    print(f"{len(batches.latents)} latents, parameters {counts}", flush=True)
    # Which places of a batch are told the identity: spread, so that both parts span all timesteps.
    places = np.floor(np.arange(arguments.batch_size + 1) * arguments.identity_share)
    told = torch.from_numpy(np.diff(places) > 0)

    denoiser.train()
    while stage.running():
        batch = batches.draw().to(device)
        errors = torch.zeros(arguments.batch_size, device=device)
        for part, identity in ((~told, None), (told, batch.identity_embeds[told])):
            if part.any():
                prediction = denoiser(
                    batch.noisy[part], batch.timesteps[part], batch.input_ids[part], identity
                )
                squared = (prediction - batch.noise[part]).square()
                errors[part] = squared.mean(dim=(1, 2, 3))
        loss = (errors * loss_weights[batch.timesteps]).mean()
        stage.update(loss, alone=errors[~told].mean().detach(), told=errors[told].mean().detach())
        if stage.step % arguments.sheet_every == 0:
            show(vae, stage, arguments)
    stage.save()
    show(vae, stage, arguments)


def show(vae: AutoencoderKL, stage: TrainingStage, arguments: argparse.Namespace) -> None:
    """Writes a sheet of 32 samples of the averaged weights, four per prompt."""
    averaged: Denoiser = stage.averaged  # type: ignore[assignment]
    device = next(averaged.parameters()).device
    pipeline = assemble_pipeline(vae.to(device), averaged)
    prompts = [prompt for prompt in SHEET_PROMPTS for _ in range(4)]
    path = arguments.work / "sheets" / f"unet_{stage.step:06d}.png"
    save_sheet(sample(pipeline, prompts, seed=1), path)


if __name__ == "__main__":
    main()
