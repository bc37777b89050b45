"""What protection leaves of a person against what it costs the eye: ours and the methods of others.

``python -m benchmarks.frontier PHOTOS OUT.jsonl --judge NAME=FILE --through FOLDER`` protects the
first four photos of each of the first people below PHOTOS (``<person>/<photo>``) by our method
at several JODs and by each method of others at several levels, then lets recognisers that are in no
loss look through an autoencoder that is in none either. No attack: that takes minutes a point,
this a few seconds. A line of JSON per condition is added to OUT.jsonl; those that it holds are
not done again.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import get_args

import numpy as np
import torch
from PIL import Image as Pictures

from dladiff.config import EncoderSettings, MethodSettings, OtherMethodName, preset_settings
from dladiff.encoders.identity_encoders import load_identity_encoder
from dladiff.evaluation.handlings import handle_photos
from dladiff.evaluation.judges import Panel
from dladiff.evaluation.settings import HandlingName
from dladiff.evaluation.through import RoundTrip, load_round_trip
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.image_values import Image
from dladiff.models import ProtectionModels, load_models
from dladiff.protect import protect_photo_set
from dladiff.results import Photo
from dladiff.visible_difference import worst_face_jod
from pipeline.errors import ConfigurationError
from pipeline.evaluation.settings import parse_judge

PHOTOS, REFERENCES = 4, 4
"""Of each person: protected, and known to the recognisers."""
JODS = (9.0, 9.2, 9.4, 9.6)
LEVELS = (12.0, 6.0)
"""In faces; around them a sixth, as ours has it."""
HANDLINGS: tuple[HandlingName, ...] = ("none", "jpeg75_half")

People = Sequence[tuple[Sequence[Image], Sequence[Image]]]
"""Clean photos to protect, and references, of each person."""


def main() -> None:
    """Adds a line per condition that the output lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("output", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50, help="of the methods of others")
    parser.add_argument(
        "--judge",
        action="append",
        required=True,
        metavar="NAME=FILE",
        help="as of `dladiff evaluate`",
    )
    parser.add_argument("--through", type=Path, required=True, help="an autoencoder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    people = [read_person(folder) for folder in sorted(options.photos.iterdir())[: options.people]]
    try:
        panel = panel_of([parse_judge(text) for text in options.judge])
    except ConfigurationError as error:
        parser.error(str(error))
    round_trip = load_round_trip(options.through, "cpu")
    done = {json.loads(line)["condition"] for line in lines_of(options.output)}
    for name, method in conditions(options.steps):
        if name in done:
            continue
        models = None if method is None else load_models(method, "cpu")
        began = time.process_time()
        protected = [protect(method, models, clean) for clean, _ in people]
        seconds = (time.process_time() - began) / (PHOTOS * len(people))
        line = {
            "condition": name,
            "cpu_seconds": round(seconds, 1),
            "jod": jods(people, protected, panel.detector),
            "left": what_is_left(people, protected, panel, round_trip),
        }
        with options.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def conditions(steps: int) -> Iterator[tuple[str, MethodSettings | None]]:
    """Clean photos, ours at several JODs, then the methods of others at several levels."""
    yield "clean", None
    yield "DLADiff strong", preset_settings("strong")
    for jod in JODS:
        balanced = preset_settings("balanced")
        yield f"DLADiff {jod}", balanced.changed(f"loop.visibility_jod={jod}")
    for levels in LEVELS:
        for name in get_args(OtherMethodName):
            budgets = (
                f"budget.fine_tuning_levels={levels * 7 / 18}",
                f"budget.zero_shot_levels={levels * 11 / 18}",
                f"budget.surroundings_levels={levels / 6}",
                f"loop.num_steps={steps}",
            )
            yield f"{name} {levels:g}", preset_settings(name).changed(*budgets)


def protect(
    method: MethodSettings | None, models: ProtectionModels | None, clean: Sequence[Image]
) -> Sequence[Image]:
    """One person's photos by a method; by none as they are."""
    if method is None or models is None:
        return clean
    photos = [Photo(str(number), image) for number, image in enumerate(clean)]
    results = protect_photo_set(photos, [], models, method).photos
    return [
        photo if result.image is None else result.image
        for photo, result in zip(clean, results, strict=True)
    ]


def jods(
    people: People, protected: Sequence[Sequence[Image]], detector: FaceDetector
) -> dict[str, float]:
    """Of the largest face of each photo at twice its size."""
    found = []
    for (clean, _), others in zip(people, protected, strict=True):
        for photo, other in zip(clean, others, strict=True):
            jod = worst_face_jod(photo, other, detector.detect(photo)[:1], "cpu")
            found.append(10.0 if jod is None else jod)
    return {"median": round(float(np.median(found)), 2), "worst": round(min(found), 2)}


def what_is_left(
    people: People, protected: Sequence[Sequence[Image]], panel: Panel, round_trip: RoundTrip
) -> dict[str, dict[str, float]]:
    """Mean cosine to the person's references, by place of looking and recogniser."""
    left: dict[str, dict[str, list[float]]] = {}
    for (clean, references), photos in zip(people, protected, strict=True):
        known = {name: seen.reference for name, seen in panel.look(references).items()}
        for handling in HANDLINGS:
            handled = handle_photos(handling, photos, clean)
            shown = [round_trip(image) for image in handled]
            for place, images in (("photo", handled), ("autoencoder", shown)):
                for name, seen in panel.look(images).items():
                    cells = left.setdefault(f"{place}, {handling}", {}).setdefault(name, [])
                    cells += [float(cosine) for cosine in seen.cosines(known[name])]
    return {
        place: {name: round(fmean(cosines), 3) for name, cosines in by_judge.items()}
        for place, by_judge in left.items()
    }


def panel_of(judges: Sequence[EncoderSettings]) -> Panel:
    """Recognisers, and a detector for all."""
    encoders = [load_identity_encoder(judge, "cpu") for judge in judges]
    return Panel(load_face_detector(preset_settings("balanced").detector), encoders)


def read_person(folder: Path) -> tuple[Sequence[Image], Sequence[Image]]:
    """The first photos of a person to protect, and the next as references."""
    files = sorted(folder.glob("*.jpg"))[: PHOTOS + REFERENCES]
    photos = [np.array(Pictures.open(file).convert("RGB")) for file in files]
    return photos[:PHOTOS], photos[PHOTOS:]


def lines_of(path: Path) -> list[str]:
    """Of a file that need not be there."""
    return path.read_text().splitlines() if path.is_file() else []


if __name__ == "__main__":
    main()
