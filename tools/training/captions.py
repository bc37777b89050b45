"""Captions made from measured attributes, and the small vocabulary they are written in.

Every clause says something that ``attributes`` or the portraits' table knows, so text
carries information and cross-attention has something to read. ``sks`` is in the vocabulary and
in no caption: it is the rare word that fine-tuning attaches a person to.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from tools.training.attributes import BACKGROUNDS

MAX_TOKENS = 32
SHIPPED_TOKENIZER = Path(__file__).parents[2] / "dladiff/reference_models/faces-128/tokenizer"

TEMPLATES = ("photo", "dslr portrait", "picture", "studio portrait")
"""``photo``: the crop as it is; ``dslr portrait``: sharpened; ``picture``: softened;
``studio portrait``: 1.15x closer."""

_WORDS = """
a an the of in with and at on for to by is
photo photograph picture portrait image selfie closeup dslr studio black white colour color
man woman person face male female boy girl human men women people
sks ohwx zwx
born hair dark light glasses beard moustache smiling serious looking wearing hat suit
blue grey gray red brown green yellow navy background front camera mirror eiffel tower beach
old young years
"""

COLOUR_SATURATION = 0.06
DARK_HAIR, LIGHT_HAIR = 0.42, 0.9
GLASSES, BEARD, SMILING, SERIOUS = 0.75, 0.125, 1.26, 1.06


@dataclass(frozen=True)
class Attributes:
    """What is known of one portrait; None or False where a caption should be silent."""

    sex: str
    """``M``, ``F`` or empty."""
    birth_year: int
    """0 where unknown."""
    colour: bool
    background: str
    hair: str | None
    glasses: bool
    beard: bool
    expression: str | None


def portrait_attributes(table: dict[str, NDArray[Any]], row: int) -> Attributes:
    """Reads one row of ``portraits.npz`` and applies the thresholds of this module."""
    colour = bool(table["saturation"][row] > COLOUR_SATURATION)
    hair, smile = float(table["hair"][row]), float(table["smile"][row])
    return Attributes(
        sex=str(table["sex"][row]),
        birth_year=int(table["birth_year"][row]),
        colour=colour,
        background=BACKGROUNDS[int(table["background"][row])],
        hair="dark" if hair < DARK_HAIR else "light" if hair > LIGHT_HAIR else None,
        glasses=bool(table["glasses"][row] > GLASSES),
        beard=bool(table["beard"][row] > BEARD),
        expression="smiling" if smile > SMILING else "serious" if smile < SERIOUS else None,
    )


def write_caption(
    attributes: Attributes, template: str, random: np.random.Generator, *, empty_share: float = 0.1
) -> str:
    """Writes one caption; clauses are dropped at random so that short prompts are known too."""
    if random.random() < empty_share:
        return ""
    subject = {"M": "man", "F": "woman"}.get(attributes.sex, "person")
    if random.random() < 0.3:
        subject = "person"
    tone = "" if attributes.colour else "black and white "
    caption = f"a {tone}{template} of a {subject}"
    if random.random() < 0.3:
        return caption
    clauses = []
    if attributes.birth_year:
        clauses.append(f"born {attributes.birth_year // 10 * 10}s")
    if attributes.hair:
        clauses.append(f"{attributes.hair} hair")
    if attributes.glasses:
        clauses.append("glasses")
    if attributes.beard:
        clauses.append("beard")
    if attributes.expression:
        clauses.append(attributes.expression)
    clauses.append(f"{attributes.background} background")
    kept = [clause for clause in clauses if random.random() < 0.75]
    return ", ".join([caption, *kept])


def build_tokenizer() -> CLIPTokenizer:
    """Returns CLIP's tokenizer over a small vocabulary; unknown words fall back to bytes.

    The vocabulary was made once and is read from the shipped checkpoint, so that trained weights
    keep their meaning: the library breaks ties between merges anew in each process.
    """
    if (SHIPPED_TOKENIZER / "vocab.json").is_file():
        return CLIPTokenizer.from_pretrained(SHIPPED_TOKENIZER)
    words = _WORDS.split()
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=None))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=0,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(sorted(words), trainer)
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet]
    tokens += [first + second for first, second in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
