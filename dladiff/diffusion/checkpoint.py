"""One latent diffusion checkpoint as one object: UNet, VAE, text encoder, noise schedule.

Knows how a Stable-Diffusion-shaped checkpoint is loaded and used. Knows nothing of losses,
adapters or photos; ``surrogates`` turns it into the surrogates of layer 1.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dladiff.accelerator import Precision, is_accelerator
from dladiff.config import AutoencoderSettings, ModelSettings, SurrogateSettings
from dladiff.diffusion.autoencoder import Autoencoder, FaceTemplate, Latents
from dladiff.diffusion.latent_spaces import latent_space
from dladiff.diffusion.memory import rows_on, unet_rows_on
from dladiff.diffusion.parts import configured_vae, load_part, load_vae, read_json
from dladiff.errors import ModelError
from dladiff.weight_files import XL_IS_NO_SURROGATE, autoencoder_folder, checkpoint_folder

Timesteps = Int[Tensor, " batch"]
"""Timesteps of a noise schedule, 0 ... 999."""
PromptEmbeds = Float[Tensor, "1 tokens features"]
PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, eq=False)
class SecondText:
    """What Stable Diffusion XL reads a prompt with besides its first text encoder."""

    encoder: CLIPTextModelWithProjection = field(repr=False)
    tokenizer: CLIPTokenizer = field(repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class DiffusionModel(Autoencoder):
    """A frozen checkpoint, theta_pre of the paper: an autoencoder, its UNet and what that needs.

    Sides of images are ``resolution``; of latents ``resolution // vae_scale_factor``.
    """

    unet: UNet2DConditionModel = field(repr=False)
    text_encoder: CLIPTextModel = field(repr=False)
    tokenizer: CLIPTokenizer = field(repr=False)
    noise_scheduler: DDPMScheduler = field(repr=False)
    prompt_embeds: PromptEmbeds = field(repr=False)
    """Text embedding c of the instance prompt, computed once."""
    alphas_cumprod: Float[Tensor, " num_train_timesteps"] = field(repr=False)
    """abar_t of the noise schedule, on the UNet's device."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """Calibrated for this checkpoint, by adaptation (``lora``, ``full``)."""
    unet_rows_per_pass: int | None = None
    """Rows that fit into the device's memory beside the weights, with gradients; None: any."""
    second_text: SecondText | None = None
    """Of Stable Diffusion XL only, from which ``attacks.sampling`` samples. ``predict`` has no
    conditioning for it, and ``prompt_embeds`` are of the first text encoder alone."""

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    @property
    def prediction_type(self) -> PredictionType:
        kind: PredictionType = self.noise_scheduler.config.prediction_type
        return kind

    def unet_rows(self, wanted: int) -> int:
        """Rows a pass of the UNet: as many as wanted, if they fit."""
        most = self.unet_rows_per_pass
        return wanted if most is None else min(wanted, most)

    def predict(
        self,
        noisy_latents: Latents,
        timesteps: Timesteps,
        weights: dict[str, Tensor] | None = None,
        prompt_embeds: Float[Tensor, "prompts tokens features"] | None = None,
    ) -> Latents:
        """Predicts the target (noise or velocity) of noisy latents under the prompt.

        Args:
            noisy_latents: q(z, t, e).
            timesteps: One per row.
            weights: Used instead of the UNet's own, by parameter name; the UNet keeps its own.
            prompt_embeds: Another conditioning than the instance prompt.
        """
        embeds = self.prompt_embeds if prompt_embeds is None else prompt_embeds
        embeds = embeds.expand(len(noisy_latents), -1, -1)
        arguments = (noisy_latents, timesteps, embeds)
        with self.autocast():
            if weights is None:
                (model_pred,) = self.unet(*arguments, return_dict=False)
            else:
                (model_pred,) = torch.func.functional_call(
                    self.unet, weights, arguments, {"return_dict": False}
                )
        prediction: Tensor = model_pred.to(noisy_latents.dtype)
        return prediction

    @torch.no_grad()
    def embed_prompt(self, prompt: str) -> PromptEmbeds:
        """Embeds a prompt as the checkpoint's pipeline would.

        Raises:
            ValueError: If the prompt has more tokens than the text encoder reads.
        """
        return embed_prompt(prompt, self.tokenizer, self.text_encoder)


def embed_prompt(prompt: str, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> PromptEmbeds:
    """Embeds one prompt, padded to the text encoder's length; see ``DiffusionModel``."""
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    if (found := len(tokenizer(prompt).input_ids)) > length:
        raise ValueError(f"expected a prompt of at most {length} tokens, got {found}: {prompt!r}")
    tokens = tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt")
    device = next(encoder.parameters()).device
    uses_mask = getattr(encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(device) if uses_mask else None
    with torch.no_grad():
        embeds: Tensor = encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
    return embeds


def load_diffusion_model(
    settings: ModelSettings,
    device: torch.device | str,
    precision: Precision = "float32",
    accepts_xl: bool = False,
    prompt: str = SurrogateSettings().prompt,
) -> DiffusionModel:
    """Loads a checkpoint in diffusers format, frozen, in evaluation mode and float32.

    Only safetensors weights are read and no code of the checkpoint runs.

    Args:
        settings: Which checkpoint, at which resolution.
        device: Where it shall live.
        precision: ``bfloat16``, on an accelerator: the autoencoder's weights, and autocast for the
            UNet, whose weights stay float32.
        accepts_xl: Whether Stable Diffusion XL will do: the caller only samples from it.
        prompt: Under which surrogates learn and predict.

    Raises:
        ModelError: If the checkpoint is absent, unpinned, damaged or of another kind.
    """
    folder = checkpoint_folder(settings)
    source = str(folder or settings.checkpoint)
    revision = settings.revision if folder is None else None
    unet = load_part(UNet2DConditionModel, source, "unet", revision)
    vae = load_vae(source, revision)
    second_text = _load_second_text(unet, source, revision, device, accepts_xl)
    text_encoder = load_part(CLIPTextModel, source, "text_encoder", revision)
    tokenizer = load_part(CLIPTokenizer, source, "tokenizer", revision)
    # DDPM has the forward process of every scheduler that Stable Diffusion ships with.
    noise_scheduler = load_part(DDPMScheduler, source, "scheduler", revision)
    kind = noise_scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ModelError(f"{source}: prediction type {kind!r} is neither epsilon nor v_prediction")
    for module in (unet, text_encoder):
        module.eval().requires_grad_(False).to(device)
    device = torch.device(device)
    vae = placed(vae, device, precision)
    factor = latent_space(vae).scale_factor(vae)
    resolution = settings.resolution or unet.config.sample_size * factor
    return DiffusionModel(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        noise_scheduler=noise_scheduler,
        prompt_embeds=embed_prompt(prompt, tokenizer, text_encoder),
        alphas_cumprod=noise_scheduler.alphas_cumprod.to(device),
        resolution=_whole_cells(source, vae, resolution),
        face_template=_read_face_template(source),
        learning_rates=read_json(Path(source) / "learning_rates.json"),
        precision=precision,
        rows_per_pass=rows_on(device, vae, resolution, precision),
        unet_rows_per_pass=unet_rows_on(device, unet, resolution // factor),
        second_text=second_text,
    )


def _load_second_text(
    unet: UNet2DConditionModel,
    source: str,
    revision: str | None,
    device: torch.device | str,
    accepts_xl: bool,
) -> SecondText | None:
    kind = unet.config.addition_embed_type
    if kind is None:
        return None
    if kind != "text_time":
        raise ModelError(f"{source}: a UNet of kind {kind!r} is none of Stable Diffusion's")
    if not accepts_xl:
        raise ModelError(f"{source}: {XL_IS_NO_SURROGATE}")
    encoder = load_part(CLIPTextModelWithProjection, source, "text_encoder_2", revision)
    tokenizer = load_part(CLIPTokenizer, source, "tokenizer_2", revision)
    return SecondText(encoder.eval().requires_grad_(False).to(device), tokenizer)


def load_autoencoder(
    settings: AutoencoderSettings,
    device: torch.device | str,
    precision: Precision = "float32",
) -> Autoencoder:
    """Loads only the autoencoder of a checkpoint, frozen, in evaluation mode and float32.

    Raises:
        ModelError: As ``load_diffusion_model``.
    """
    source, revision = _place(settings)
    vae = load_vae(source, revision)
    resolution = settings.resolution or _native_resolution(source, vae, revision)
    device = torch.device(device)
    return Autoencoder(
        vae=placed(vae, device, precision),
        resolution=_whole_cells(source, vae, resolution),
        face_template=_read_face_template(source),
        precision=precision,
        rows_per_pass=rows_on(device, vae, resolution, precision),
    )


def configured_autoencoder(settings: AutoencoderSettings) -> tuple[Any, int]:
    """A network as its configuration describes it, frozen, weights not read; and its resolution.

    Raises:
        ModelError: As ``load_autoencoder``, of its configuration.
    """
    source, revision = _place(settings)
    vae = configured_vae(source, revision).eval().requires_grad_(False)
    return vae, settings.resolution or _native_resolution(source, vae, revision)


def _place(settings: AutoencoderSettings) -> tuple[str, str | None]:
    """Folder, or hub id with its revision."""
    if isinstance(settings, ModelSettings):
        folder = checkpoint_folder(settings)
    else:
        folder = autoencoder_folder(settings)
    return str(folder or settings.checkpoint), settings.revision if folder is None else None


def placed(vae: Any, device: torch.device, precision: Precision) -> Any:
    """An autoencoder, frozen and on its device, weights in bfloat16 where it computes so.

    Autocast alone would keep float32 about every normalisation: 7.4 in place of 4.5 GiB a photo of
    512 px with Stable Diffusion's. Statistics of latents stay float32.
    """
    vae = vae.eval().requires_grad_(False)
    if precision == "bfloat16" and is_accelerator(device):
        # Past diffusers' own, which warns of casting whatever the class.
        vae = torch.nn.Module.to(vae, dtype=torch.bfloat16)
        for name, buffer in vae.named_buffers():
            buffer.data = buffer.data.float() if name.startswith("bn.") else buffer.data
    return vae.to(device)


def _native_resolution(source: str, vae: Any, revision: str | None) -> int:
    """The side of the checkpoint's UNet, which its autoencoder is fed at; else its own."""
    space, side = latent_space(vae), None
    with suppress(OSError, ValueError, KeyError, TypeError):
        unet = UNet2DConditionModel.load_config(source, subfolder="unet", revision=revision)
        # An autoencoder's own folder has none; diffusers reads its config.json in place of one.
        if unet["_class_name"] == "UNet2DConditionModel":
            side = int(unet["sample_size"]) * space.scale_factor(vae)
    side = side or vae.config.get("sample_size") or space.resolution
    if side is None:
        raise ModelError(
            f"{source}: no configuration says at which size this autoencoder works: set its "
            "resolution (512 for Stable Diffusion 1's, 1024 for XL's and later ones)"
        )
    return int(side)


def _whole_cells(source: str, vae: Any, resolution: int) -> int:
    """The resolution, if it is a whole number of latents' cells."""
    factor = latent_space(vae).scale_factor(vae)
    if resolution % factor:
        raise ModelError(
            f"{source}: resolution {resolution} is no multiple of {factor}, the pixels of a "
            "cell of this autoencoder's latents"
        )
    return resolution


def _read_face_template(source: str) -> FaceTemplate | None:
    landmarks = read_json(Path(source) / "face_template.json").get("landmarks")
    if landmarks is None:
        return None
    try:
        template = torch.tensor(landmarks, dtype=torch.float32)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{source}: face_template.json: not numbers: {error}") from error
    if template.shape != (5, 2):
        raise ModelError(
            f"{source}: face_template.json: expected five (x, y) under 'landmarks', got shape "
            f"{tuple(template.shape)}"
        )
    return template
