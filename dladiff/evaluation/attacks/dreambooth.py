"""DreamBooth (Ruiz et al. 2023, arXiv:2208.12242) without a prior term: all weights learn."""

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, copy_of
from dladiff.evaluation.settings import AttackSettings


def begin_dreambooth(diffusion: DiffusionModel, settings: AttackSettings) -> Customised:
    """A copy of the UNet, and of the text encoder if it shall learn too."""
    model = copy_of(diffusion, unet=True, text_encoder=settings.train_text_encoder)
    model.weights = list(model.unet.requires_grad_(True).parameters())
    if settings.train_text_encoder:
        model.weights += list(model.text_encoder.requires_grad_(True).parameters())
        model.learns_text = True
    return model
