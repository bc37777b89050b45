"""A run, as a program, in which one set eats memory until somebody ends its process.

``python -m tests.faults.hungry_run ALBUM OUTPUT``
"""

import sys
import time
from collections.abc import Sequence

from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.config import load_config
from pipeline.options import RunOptions
from pipeline.ray_pool import RayPool
from pipeline.run import run_protection
from pipeline.worker.protector import Protector
from pipeline.worker.settings import WorkerSettings

HUNGRY_HEIGHT = 201
"""Of a photo whose set never has enough."""
_BITE_BYTES = 64 * 1024**2


def load_hungry(_: WorkerSettings) -> Protector:
    """No method but the negative of a photo."""

    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        eaten = []
        while any(one.image.shape[0] == HUNGRY_HEIGHT for one in photos):
            eaten.append(b"x" * _BITE_BYTES)
            time.sleep(0.05)  # Ray looks four times a second
        return SetResult(
            [PhotoResult(one.key, "protected", image=255 - one.image) for one in photos]
        )

    return protect


def main(album: str, output: str) -> int:
    """Returns the run's exit code."""
    settings = ["threads=1", "workers=1", "worker_memory_gb=0.2", "max_crashed_attempts=2"]
    settings += ["canary.num_sets=0"]  # negatives are no method that it would let through
    config = load_config("zero-shot", overrides=settings)
    outcome = run_protection(album, output, config, RunOptions(), pool=RayPool(load_hungry))
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
