"""A signed step of ours against one of other methods: CPU seconds and passes per photo and step.

``python -m benchmarks.method_cost FOLDER`` takes the first photos of one person (a folder of photos
with a face) and the embedded checkpoint, one thread. Others are those of
``dladiff.methods.others``. What comes before the first step (detection, FSMG's training of its
surrogate) is not counted, nor is the measurement at the end.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dladiff.config import EncoderSettings, preset_settings
from dladiff.diffusion.checkpoint import load_diffusion_model
from dladiff.encoders.identity_encoders import load_identity_encoder
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.person import BaselineSettings, Effort, Person
from dladiff.models import ProtectionModels, load_models
from dladiff.photo_at_work import PhotoAtWork
from dladiff.protect import protect_photo_set
from dladiff.quality import load_learned_perceptual_distance
from dladiff.results import Cost, Photo

OTHERS = ("fsmg", "aspl", "facelock")


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


def ours(photos: list[Photo], models: ProtectionModels, num_steps: int) -> Spent:
    """Preset ``balanced`` with ``num_steps``, detection and measurement included."""
    method = preset_settings("balanced").changed(f"loop.num_steps={num_steps}")
    began = time.process_time()
    result = protect_photo_set(photos, [], models, method)
    return Spent(num_steps, len(photos), time.process_time() - began, result.cost)


def theirs(name: str, photos: list[Photo], num_steps: int) -> Spent:
    """A baseline with ``num_steps``; FSMG does not train its surrogate first."""
    method = preset_settings("balanced").changed("surrogates.step0_steps=0")
    models = load_models(method, "cpu")
    diffusion = load_diffusion_model(method.model, "cpu")
    sface = load_identity_encoder(EncoderSettings(name="sface", kind="sface"), "cpu")
    began = time.process_time()
    grids = [PhotoAtWork(photo, models.detector.detect(photo.image)) for photo in photos]
    lpips = load_learned_perceptual_distance("cpu")
    effort = Effort(num_steps)
    person = Person.begin(grids, diffusion, BaselineSettings(method=method), effort, sface, lpips)
    BASELINES[name](person).run()
    return Spent(num_steps, len(photos), time.process_time() - began, person.cost)


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
    models = load_models(preset_settings("balanced"), "cpu")
    runs = {"ours": partial(ours, photos, models)}
    runs |= {name: partial(theirs, name, photos) for name in OTHERS}
    for name, run in runs.items():
        run(1)  # What only a first call takes.
        print(run(arguments.steps).less(run(arguments.steps // 2)).row(name), flush=True)


if __name__ == "__main__":
    main()
