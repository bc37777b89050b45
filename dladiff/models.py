"""The models of a worker, loaded once: face detector, identity encoders, diffusion checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dladiff.accelerator import precision_on, use_tensor_cores
from dladiff.config import EncoderSettings, MethodSettings
from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.own_losses import OwnLoss
from dladiff.quality import LearnedPerceptualDistance, load_learned_perceptual_distance

if TYPE_CHECKING:
    from dladiff.diffusion.checkpoint import DiffusionModel


@dataclass
class ProtectionModels:
    """Frozen models on one device; hold no state of any person between two photo sets."""

    device: torch.device
    detector: FaceDetector
    encoders: list[IdentityEncoder]
    """In the order of ``config.reported_encoders``; judges, and those of no loss, only
    measure."""
    autoencoders: list[Autoencoder]
    """The checkpoint's own, then ``config.autoencoders``; none where no checkpoint is read."""
    load_diffusion: "Callable[[], DiffusionModel] | None"
    """Loads the whole checkpoint at the first call; None where none is read. Photos with faces
    may never need it."""
    lpips: LearnedPerceptualDistance | None
    """None where its weights are not installed."""
    more_likeness_encoders: Sequence[IdentityEncoder] = ()
    """Encoders of the likeness loop that stand beside the white boxes."""
    losses: Sequence[OwnLoss] = ()
    """The caller's own, beside L_id."""

    @property
    def white_boxes(self) -> list[IdentityEncoder]:
        """The encoders of both layers' losses."""
        return [encoder for encoder in self.encoders if not encoder.held_out]

    @property
    def likeness_encoders(self) -> list[IdentityEncoder]:
        """All encoders of the likeness loop."""
        return [*self.white_boxes, *self.more_likeness_encoders]


def _as_read(encoder: EncoderSettings, config: MethodSettings) -> EncoderSettings:
    """An encoder that is in no loss only measures, whatever its settings say."""
    is_read = encoder in config.encoders_in_loss
    return encoder if is_read else encoder.model_copy(update={"role": "judge"})


def load_models(
    config: MethodSettings, device: torch.device | str, cache_dir: Path | None = None
) -> ProtectionModels:
    """Loads and checks every model that ``config`` names.

    Args:
        config: The method.
        device: Where the models shall live, e.g. ``"cuda:0"``.
        cache_dir: Where converted weights are kept between runs; None: not kept.

    Raises:
        ModelError: If weights are missing, damaged or disagree with their reference runtime.
    """
    device = torch.device(device)
    autoencoders, load_diffusion = [], None
    if config.reads_model:
        from dladiff.diffusion.checkpoint import load_autoencoder, load_diffusion_model

        own, others = config.model, config.autoencoders
        precision = precision_on(device, config.precision)
        use_tensor_cores(device, precision)
        autoencoders = [load_autoencoder(own, device, precision)]
        autoencoders += [load_autoencoder(other, device, precision) for other in others]
        prompt = config.surrogates.prompt
        load_diffusion = cache(partial(load_diffusion_model, own, device, precision, prompt=prompt))
    load_encoder = partial(load_identity_encoder, device=device, cache_dir=cache_dir)
    return ProtectionModels(
        device=device,
        detector=load_face_detector(config.detector),
        encoders=[load_encoder(_as_read(encoder, config)) for encoder in config.reported_encoders],
        autoencoders=autoencoders,
        load_diffusion=load_diffusion,
        lpips=load_learned_perceptual_distance(device),
        more_likeness_encoders=[load_encoder(encoder) for encoder in config.more_likeness_encoders],
    )
