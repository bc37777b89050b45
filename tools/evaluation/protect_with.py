"""Protects photos with a method of others or a control, to compare ours with.

``python -m tools.evaluation.protect_with METHOD IN OUT`` reads ``IN/<identity>/<photo>``, takes
each person's first photos, and writes PNG files under the same names and ``cost.json`` into OUT;
then ``dladiff evaluate IN OURS RESULTS --also METHOD=OUT`` compares, paired.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from dladiff.config import EncoderSettings, MethodSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.errors import GradientError
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.image_values import Image, image_to_tensor, tensor_to_image
from dladiff.methods.others.by_name import FACELOCK
from dladiff.methods.others.person import BaselineSettings, Effort, Person
from dladiff.models import ProtectionModels, load_models
from dladiff.photo_at_work import PhotoAtWork
from dladiff.quality import (
    LearnedPerceptualDistance,
    load_learned_perceptual_distance,
    psnr_db,
)
from dladiff.results import Cost, Photo
from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError
from pipeline.evaluation.families import family_of
from pipeline.evaluation.people import photos_by_identity, protected_uris
from pipeline.images.coding import Coding
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.records import SourcePhoto
from pipeline.storage.store import read_uri
from tools.evaluation.controls import BORROWED, METHODS, Donor, perturb
from tools.evaluation.sampled_face import (
    SAMPLED_FACE,
    sampled_face_method,
    take_stranger_away,
)

DEFAULT_STEPS = 100
"""As Mist and FaceLock have it."""


@dataclass(frozen=True, eq=False)
class Models:
    """What this command needs of the package's models, on the CPU."""

    detector: FaceDetector
    diffusion: DiffusionModel
    identity_encoder: IdentityEncoder | None
    """SFace, for FaceLock only."""
    lpips: LearnedPerceptualDistance | None
    protection: ProtectionModels | None
    """Our method's own, for ``sampled_face`` only."""
    in_loss: dict[str, str]
    """Family by name of the encoders that are in a loss; an evaluation reads it."""

    @classmethod
    def load(cls, method: str, settings: MethodSettings) -> "Models":
        recogniser = EncoderSettings(name="sface", kind="sface")
        of_losses = {
            FACELOCK: (recogniser,),
            SAMPLED_FACE: settings.encoders_in_loss,
        }.get(method, ())
        return cls(
            detector=load_face_detector(settings.detector),
            diffusion=load_diffusion_model(settings.model, "cpu"),
            identity_encoder=(
                load_identity_encoder(recogniser, "cpu") if method == FACELOCK else None
            ),
            lpips=load_learned_perceptual_distance("cpu"),
            protection=load_models(settings, "cpu") if method == SAMPLED_FACE else None,
            in_loss={one.name: family_of(one.kind) for one in of_losses},
        )


@dataclass
class Tally:
    """What was spent and what it shows, photo by photo; names nobody."""

    costs: list[Cost] = field(default_factory=list)
    num_steps: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)
    lpips: list[float] = field(default_factory=list)
    max_change_levels: list[int] = field(default_factory=list)

    def add(self, cost: Cost, num_steps: int, spent_s: float) -> None:
        """One person's work, before any measurement."""
        self.costs.append(cost)
        self.num_steps.append(num_steps)
        self.cpu_seconds.append(spent_s)

    def measure(self, clean: Image, protected: Image, models: Models) -> None:
        """One photo, of the very bytes that are saved."""
        self.psnr_db.append(psnr_db(clean, protected))
        if models.lpips is not None:
            self.lpips.append(models.lpips.between(clean, protected))
        change = np.abs(protected.astype(np.int16) - clean.astype(np.int16))
        self.max_change_levels.append(int(change.max()))

    def summary(self) -> dict[str, Any]:
        """Means of work per photo, medians of quality."""
        num_photos = len(self.psnr_db)

        def per_photo(name: str) -> float:
            return float(sum(getattr(cost, name) for cost in self.costs) / num_photos)

        return {
            "num_people": len(self.costs),
            "num_photos": num_photos,
            "steps_mean": fmean(self.num_steps),
            "per_photo": {
                "unet_forward_backward_pairs": per_photo("unet_forward_backward_pairs"),
                "unet_forwards": per_photo("unet_forwards"),
                "vae_passes": per_photo("vae_passes"),
                "encoder_passes": per_photo("encoder_passes"),
                "cpu_seconds": sum(self.cpu_seconds) / num_photos,
            },
            "psnr_db_median": median(self.psnr_db),
            "lpips_median": median(self.lpips) if self.lpips else None,
            "max_change_levels": max(self.max_change_levels),
        }


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; exits with a message where IN or OUT is not as it must be."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.method == BORROWED and options.ours is None:
        parser.error("borrowed needs --ours, the tree of our protected photos of IN")
    if options.method == SAMPLED_FACE and (options.flat or options.cpu_seconds):
        parser.error("sampled_face follows our recipe: --steps, but no --cpu-seconds and no --flat")
    if options.output.exists() and any(options.output.iterdir()):
        parser.error(
            f"{options.output} is not empty: its costs would be another run's; name a new one"
        )
    torch.set_num_threads(options.threads)
    try:
        protect_tree(options)
    except (ConfigurationError, GradientError, ValueError) as error:
        sys.exit(f"protect_with: {error}")


def protect_tree(options: argparse.Namespace) -> None:
    """Protects every person of a tree, then writes down what it cost."""
    settings = BaselineSettings(
        face_levels=options.face_levels,
        surroundings_levels=options.surroundings_levels,
        flat=options.flat,
        seed=options.seed,
    )
    models = Models.load(options.method, settings.method)
    people = first_photos(options.input, options.photos)
    tally = Tally()
    for number, photos in enumerate(people):
        images = [_read(photo.uri) for photo in photos]
        donors = []
        if options.method == BORROWED:
            donors = _donors(people, number, options.ours, models)
        keys = [photo.output_key for photo in photos]
        if models.protection is not None:
            protected = _away_from_stranger(options, settings, number, keys, images, models, tally)
        else:
            protected = _protect(options, settings, keys, images, models, donors, tally)
        print(f"{number + 1} of {len(people)} people", file=sys.stderr)
        for photo, clean, result in zip(photos, images, protected, strict=True):
            tally.measure(clean, result, models)
            path = options.output / photo.output_key.removeprefix("images/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Coding("PNG").encode(result))
    shared = {name: value for name, value in asdict(settings).items() if name != "method"}
    record = {
        "method": options.method,
        **shared,
        "steps": options.steps,
        "cpu_seconds": options.cpu_seconds,
        "threads": options.threads,
        "encoders_in_loss": models.in_loss,
        **tally.summary(),
    }
    (options.output / "cost.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def _protect(
    options: argparse.Namespace,
    settings: BaselineSettings,
    keys: list[str],
    images: list[Image],
    models: Models,
    donors: list[Donor],
    tally: Tally,
) -> list[Image]:
    """The photos of one person, protected; detection and clean encodings count as work."""
    granted = None if options.cpu_seconds is None else options.cpu_seconds * len(images)
    steps = DEFAULT_STEPS if options.steps is None and granted is None else options.steps
    effort = Effort(steps, granted)
    photos = [
        PhotoAtWork(Photo(key, image), models.detector.detect(image))
        for key, image in zip(keys, images, strict=True)
    ]
    person = Person.begin(
        photos, models.diffusion, settings, effort, models.identity_encoder, models.lpips
    )
    perturb(options.method, person, donors)
    tally.add(person.cost, effort.num_taken, effort.cpu_seconds_spent)
    return [tensor_to_image(instance.photo.perturbed()) for instance in person.instances]


def _away_from_stranger(
    options: argparse.Namespace,
    settings: BaselineSettings,
    number: int,
    keys: list[str],
    images: list[Image],
    models: Models,
    tally: Tally,
) -> list[Image]:
    """The photos of one person by our own recipe, aimed at another sampled face for each."""
    assert models.protection is not None
    effort = Effort()
    method = sampled_face_method(settings, options.steps)
    photos = [Photo(key, image) for key, image in zip(keys, images, strict=True)]
    aimed = take_stranger_away(
        photos, models.protection, models.diffusion, method, 1000 * settings.seed + number
    )
    tally.add(aimed.cost, method.loop.num_steps, effort.cpu_seconds_spent)
    return aimed.images


def first_photos(source: str, num_photos: int) -> list[list[SourcePhoto]]:
    """The first photos of each identity by name: those that an evaluation attacks.

    Raises:
        ConfigurationError: If there are none.
    """
    by_identity = photos_by_identity(read_catalog(source, OperationSettings()).photos)
    if not by_identity:
        raise ConfigurationError(f"no photos in {source}; it needs <identity>/<photo>")
    return [photos[:num_photos] for photos in by_identity.values()]


def _donors(people: list[list[SourcePhoto]], number: int, ours: str, models: Models) -> list[Donor]:
    """Our changes of the next person's photos."""
    if len(people) < 2:
        raise ConfigurationError("borrowed needs at least two people in IN")
    photos = people[(number + 1) % len(people)]
    uris = protected_uris(photos, ours)
    donors = []
    for photo in photos:
        if photo.uri in uris:
            clean, protected = _read(photo.uri), _read(uris[photo.uri])
            change = image_to_tensor(protected) - image_to_tensor(clean)
            donors.append(Donor(change, models.detector.detect(clean)))
    if not donors:
        raise ConfigurationError(f"{ours} has no protected photo of somebody in IN")
    return donors


def _read(uri: str) -> Image:
    return decode_photo(read_uri(uri), PhotoLimits()).image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=(*METHODS, SAMPLED_FACE))
    parser.add_argument("input", help="folder with <identity>/<photo>")
    parser.add_argument("output", type=Path, help="new folder")
    parser.add_argument("--face-levels", type=float, default=18.0, help="budget inside face masks")
    parser.add_argument("--surroundings-levels", type=float, default=3.0, help="budget around")
    parser.add_argument(
        "--flat", action="store_true", help="no budget map: --face-levels everywhere"
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument(
        "--steps", type=_positive(int), help="signed steps (default: 100; sampled_face: ours)"
    )
    effort.add_argument(
        "--cpu-seconds", type=_positive(float), help="CPU seconds per photo, training included"
    )
    parser.add_argument(
        "--photos", type=_positive(int), default=4, help="of each person (default: 4)"
    )
    parser.add_argument("--ours", help="for borrowed: the tree of our protected photos of IN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_positive(int), default=1)
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
        return value

    return parse


if __name__ == "__main__":
    main()
