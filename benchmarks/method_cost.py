"""A signed step of ours against one of other methods: CPU seconds and passes per photo and step.

``python -m benchmarks.method_cost FOLDER`` takes the first photos of one person (a folder of photos
with a face) and the embedded checkpoint, one thread. Two runs of different length are compared,
so that detection and the measurement at the end cancel out.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dladiff.config import PresetName, preset_settings
from dladiff.models import load_models
from dladiff.protect import protect_photo_set
from dladiff.results import Cost, Photo

PRESETS: tuple[PresetName, ...] = ("balanced", "fsmg", "aspl", "facelock")


@dataclass(frozen=True)
class Spent:
    """What a number of signed steps on some photos took in all."""

    num_steps: int
    num_photos: int
    cpu_seconds: float
    cost: Cost

    def row(self, name: str) -> str:
        """Per photo and step."""
        each = self.num_steps * self.num_photos
        return (
            f"{name:10} {self.cpu_seconds / each:7.3f} CPU s"
            f"  UNet pairs {self.cost.unet_forward_backward_pairs / each:5.2f}"
            f"  VAE passes {self.cost.vae_passes / each:5.2f}"
            f"  encoder passes {self.cost.encoder_passes / each:5.2f}"
        )

    def less(self, other: "Spent") -> "Spent":
        """What the steps beyond another run's took."""
        mine, theirs = vars(self.cost), vars(other.cost)
        passes = ("unet_forward_backward_pairs", "vae_passes", "encoder_passes")
        cost = Cost(**{name: mine[name] - theirs[name] for name in passes})
        seconds = self.cpu_seconds - other.cpu_seconds
        return Spent(self.num_steps - other.num_steps, self.num_photos, seconds, cost)


def spend(preset: PresetName, photos: list[Photo], num_steps: int) -> Spent:
    """A preset's ``num_steps`` on some photos, detection and measurement included."""
    shorter = [f"loop.num_steps={num_steps}"]
    if preset == "fsmg":
        shorter.append("surrogates.step0_steps=0")  # it would train before the first step
    method = preset_settings(preset).changed(*shorter)
    models = load_models(method, "cpu")
    began = time.process_time()
    result = protect_photo_set(photos, [], models, method)
    return Spent(num_steps, len(photos), time.process_time() - began, result.cost)


def main() -> None:
    """Prints a row per method: the steps beyond the first run's, so that beginnings cancel out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photos of one person")
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24, help="the longer run; the other: half")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in arguments.folder.iterdir() if path.is_file())
    photos = [
        Photo(path.name, np.array(Image.open(path).convert("RGB")))
        for path in paths[: arguments.photos]
    ]
    for name in PRESETS:
        spend(name, photos, 1)  # What only a first call takes.
        longer, shorter = (spend(name, photos, arguments.steps // part) for part in (1, 2))
        print(longer.less(shorter).row(name), flush=True)


if __name__ == "__main__":
    main()
