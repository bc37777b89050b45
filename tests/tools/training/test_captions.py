"""Captions say what was measured, and never the word that fine-tuning needs."""

import numpy as np

from tools.training.captions import (
    MAX_TOKENS,
    TEMPLATES,
    Attributes,
    build_tokenizer,
    write_caption,
)

GRANDMOTHER = Attributes(
    sex="F",
    birth_year=1943,
    colour=False,
    background="blue",
    hair="light",
    glasses=True,
    beard=False,
    expression="smiling",
)


def captions(count: int = 300) -> list[str]:
    random = np.random.default_rng(0)
    return [
        write_caption(GRANDMOTHER, TEMPLATES[number % len(TEMPLATES)], random)
        for number in range(count)
    ]


def test_a_tenth_of_the_captions_is_empty_and_the_rest_is_true() -> None:
    written = captions()
    assert 0.05 < written.count("") / len(written) < 0.16
    spoken = [caption for caption in written if caption]
    assert all("black and white" in caption for caption in spoken)
    for clause in ("born 1940s", "light hair", "glasses", "smiling", "blue background", "woman"):
        assert any(clause in caption for caption in spoken), clause
    for lie in ("beard", "dark", "serious", " man"):
        assert not any(lie in caption for caption in spoken), lie


def test_the_rare_word_is_one_token_that_no_caption_has() -> None:
    tokenizer = build_tokenizer()
    start, rare, end = tokenizer("sks").input_ids
    assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    ids = tokenizer(captions(), padding="max_length", max_length=MAX_TOKENS).input_ids
    assert all(rare not in row for row in ids)
    assert {len(row) for row in ids} == {MAX_TOKENS}
