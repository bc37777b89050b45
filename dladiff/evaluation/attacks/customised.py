"""A checkpoint that learns a person: the training loop that all fine-tuning attacks share.

Knows which weights are learnt only as a list; that choice is each attack's. What is learnt lives
in memory and is never written.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel

from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import add_noise, prediction_target
from dladiff.diffusion.latent_spaces import latent_space
from dladiff.evaluation.settings import AttackSettings
from dladiff.image_values import Images, to_pixel_values


@dataclass
class Customised:
    """Copies of a checkpoint's parts of which an attack learns some weights."""

    unet: UNet2DConditionModel = field(repr=False)
    text_encoder: CLIPTextModel = field(repr=False)
    weights: list[nn.Parameter] = field(repr=False)
    """What is learnt, all requiring gradients."""
    learns_text: bool = False
    """Whether the prompt's embedding changes while training."""


def copy_of(
    diffusion: DiffusionModel, unet: bool = False, text_encoder: bool = False
) -> Customised:
    """The checkpoint's parts, frozen; those asked for as copies, the others shared."""
    return Customised(
        unet=_frozen_copy(diffusion.unet) if unet else diffusion.unet,
        text_encoder=_frozen_copy(diffusion.text_encoder)
        if text_encoder
        else diffusion.text_encoder,
        weights=[],
    )


def _frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


def fine_tune(
    model: Customised, diffusion: DiffusionModel, crops: Images, settings: AttackSettings
) -> Iterator[int]:
    """Trains on crops under the prompt; yields the number of steps at each stop.

    AdamW with clipped gradients and a linear warm-up, latents sampled anew from the posterior at
    each step, as DreamBooth scripts do. All draws are on the CPU.

    Args:
        model: Of which ``weights`` are learnt.
        diffusion: The checkpoint; not changed.
        crops: In [0, 1], of the checkpoint's size.
        settings: Steps, rates, batch.
    """
    stops = {max(1, round(share * settings.num_steps)) for share in settings.stops}
    optimizer = torch.optim.AdamW(
        model.weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(settings.seed)
    posterior = _Posterior(diffusion, crops)
    embeds = prompt_embeds(model, diffusion, settings.prompt)
    for step in range(1, settings.num_steps + 1):
        model.unet.train()
        rows = torch.randint(len(crops), (settings.batch_size,), generator=generator)
        latents = posterior.sample(generator)[rows.to(crops.device)]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = torch.randint(1000, (len(rows),), generator=generator).to(latents.device)
        if model.learns_text:
            embeds = prompt_embeds(model, diffusion, settings.prompt)
        noisy = add_noise(latents, timesteps, noise, diffusion)
        target = prediction_target(latents, timesteps, noise, diffusion)
        with diffusion.autocast():
            prediction = model.unet(noisy, timesteps, embeds.expand(len(rows), -1, -1)).sample
        loss = (prediction.float() - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, step / settings.warmup_steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step in stops:
            model.unet.eval()
            yield step
    model.unet.eval()


class _Posterior:
    """The latents' distribution of some crops, encoded once."""

    def __init__(self, diffusion: DiffusionModel, crops: Images) -> None:
        self.vae = diffusion.vae
        with torch.no_grad():
            dtype = next(self.vae.parameters()).dtype
            self.encoded = self.vae.encode(to_pixel_values(crops).to(dtype))

    def sample(self, generator: torch.Generator) -> Latents:
        # AutoencoderTiny has no posterior; its output is the latent itself.
        if hasattr(self.encoded, "latent_dist"):
            drawn: Tensor = self.encoded.latent_dist.sample(generator)
        else:
            drawn = self.encoded.latents
        raw = drawn.float()
        shift, scale = latent_space(self.vae).statistics(self.vae, raw)
        latents: Latents = (raw - shift) * scale
        return latents


def prompt_embeds(
    model: Customised, diffusion: DiffusionModel, prompt: str
) -> Float[Tensor, "1 tokens features"]:
    """The prompt's embedding by the customised text encoder, differentiable in its weights."""
    encoder, tokenizer = model.text_encoder, diffusion.tokenizer
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt")
    uses_mask = getattr(encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(diffusion.device) if uses_mask else None
    embeds: Tensor = encoder(tokens.input_ids.to(diffusion.device), attention_mask=mask)[0]
    return embeds
