"""Textual inversion (Gal et al. 2023, arXiv:2208.01618): only a word's embedding learns."""

import torch
from torch import Tensor

from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.evaluation.attacks.customised import Customised, copy_of
from dladiff.evaluation.settings import AttackSettings


def begin_textual_inversion(diffusion: DiffusionModel, settings: AttackSettings) -> Customised:
    """A copy of the text encoder in which the rows of the instance word learn.

    The word's own tokens take the place of a new one: ``sks`` means nothing to a checkpoint, and
    the copy serves one person only.

    Raises:
        ValueError: If the prompt lacks the word.
    """
    if settings.instance_word not in settings.prompt.split():
        raise ValueError(
            f"the prompt {settings.prompt!r} lacks the word {settings.instance_word!r} whose "
            "embedding shall be learnt"
        )
    model = copy_of(diffusion, text_encoder=True)
    tokens = diffusion.tokenizer(settings.instance_word, add_special_tokens=False).input_ids
    table = model.text_encoder.get_input_embeddings().weight
    rows = torch.zeros(len(table), 1, device=table.device)
    rows[torch.tensor(tokens, device=table.device)] = 1.0

    def keep_rows(gradient: Tensor) -> Tensor:
        return gradient * rows

    table.requires_grad_(True)
    # The other words must stay as they are; AdamW moves a row without gradient by its decay only,
    # which the settings put at 0.
    table.register_hook(keep_rows)
    model.weights = [table]
    model.learns_text = True
    return model
