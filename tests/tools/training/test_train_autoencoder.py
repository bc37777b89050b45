"""Batches of the autoencoder: seeded, in range, and never of a held-out identity."""

from itertools import islice

import numpy as np
import torch

from tools.training.face_data import FaceRecord, FaceSet, is_held_out
from tools.training.train_autoencoder import training_batches, unseen_portraits


def portraits(count: int = 60) -> FaceSet:
    """A flat image for each identity; held-out ones are bright, the rest are dark."""
    records = tuple(
        FaceRecord(f"{n}.jpg", f"id{n}", "", None, "grey" if n % 3 == 0 else "colour")
        for n in range(count)
    )
    levels = [230 if is_held_out(record.identity) else 20 for record in records]
    images = np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (count, 128, 128, 3))
    return FaceSet(images.copy(), records)


def test_held_out_portraits_are_in_no_batch() -> None:
    faces = portraits(400)
    assert 0 < len(unseen_portraits(faces)) < 60
    assert float(unseen_portraits(faces).min()) > 0.9
    for batch in islice(training_batches(faces, 16, 0.3, seed=0, step=0), 20):
        assert batch.shape == (16, 3, 128, 128)
        assert 0 <= float(batch.min()) <= float(batch.max()) < 0.5


def test_batches_repeat_by_seed_and_step() -> None:
    faces = portraits()

    def first(seed: int, step: int) -> torch.Tensor:
        return next(training_batches(faces, 8, 0.3, seed, step))

    assert torch.equal(first(1, 5), first(1, 5))
    assert not torch.equal(first(1, 5), first(1, 6))
