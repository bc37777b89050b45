"""Random numbers keyed by meaning: the same seed and names give the same draws anywhere.

Draws never depend on the order of work, the number of workers or the micro-batch, because
each consumer derives its own generator from what it is about (photo, stage, step).
"""

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hashes a seed and a path of names to a 63-bit seed."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. ``keyed_generator(seed, photo_key, "layer2", step)``.

    Always on the CPU, so that CPU and CUDA runs draw the same numbers; move the draws.
    """
    return torch.Generator("cpu").manual_seed(derive_seed(seed, *names))
