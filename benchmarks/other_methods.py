"""What a step of each method of others costs on Stable Diffusion 1.5, counted on the stand-in.

``python -m benchmarks.other_methods`` counts those that ``results/method_cost.json`` lacks, or
those that are named, and adds them to it: without weights or a GPU, in bfloat16 as on one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stand_in import StandIn, device
from benchmarks.stand_in_models import one_thread, stable_diffusion
from dladiff.config import preset_settings
from dladiff.encoders.identity_encoders import load_identity_encoder
from dladiff.methods.others.by_name import BASELINES
from dladiff.methods.others.person import Person
from dladiff.photo_at_work import PhotoAtWork
from dladiff.quality import load_learned_perceptual_distance
from dladiff.results import Cost, Face, Photo

RESULTS = Path(__file__).parents[1] / "results" / "method_cost.json"
PHOTOS, SIDE_PX = 4, 512
_STEPS_A_ROUND = {"aspl": 6, "simac": 6, "metacloak-style": 3}
"""After which what they train comes again; others: one."""
_TEMPLATE = [[0.3, 0.35], [0.7, 0.35], [0.5, 0.57], [0.33, 0.77], [0.67, 0.77]]
"""Landmarks of a face, in sides of its box."""


def of_method(stand_in: StandIn, name: str) -> dict[str, Any]:
    """A round of a method's steps on four photos: TFLOP of each, and the most that was alive.

    What comes before the first step (FSMG's training, SimAC's choice of timesteps) is not in it.
    """
    method = preset_settings("balanced").changed("surrogates.step0_steps=0")
    round_steps, flops, cost = _STEPS_A_ROUND.get(name, 1), list[int](), Cost()
    diffusion = stable_diffusion("bfloat16")
    reads_faces = name == "facelock"
    with stand_in.peak() as peak:
        person = Person.begin(
            [_photo(str(number)) for number in range(PHOTOS)],
            diffusion,
            method.changed(f"loop.num_steps={1 + round_steps}"),
            cost,
            load_identity_encoder(method.recognisers[0], device()) if reads_faces else None,
            load_learned_perceptual_distance(device()) if reads_faces else None,
        )
        BASELINES[name](person).run(lambda share: flops.append(stand_in.flops))
    each = (flops[-1] - flops[0]) / round_steps / PHOTOS
    return {
        "method": name,
        "tflop_a_photo_and_step": round(each / 1e12, 3),
        "peak_gib": round(peak[0] / 2**30, 2),
    }


def _photo(key: str) -> PhotoAtWork:
    """A grey photo with a face in the middle."""
    left, size = SIDE_PX / 4, SIDE_PX / 2
    landmarks = (np.array(_TEMPLATE) * size + left).astype(np.float32)
    face = Face((left, left, left + size, left + size), landmarks, 0.9)
    image = np.full((SIDE_PX, SIDE_PX, 3), 128, np.uint8)
    return PhotoAtWork(Photo(key, image), [face], torch.device(device()))


def main() -> None:
    """Counts, and writes the results after each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", action="append", choices=sorted(BASELINES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
    known = {row["method"]: row for row in rows}
    device()
    # Modules that were made elsewhere get other parameters when they are moved to the stand-in.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    for name in arguments.method or sorted(set(BASELINES) - set(known)):
        with one_thread() as stand_in:
            known[name] = of_method(stand_in, name)
        print(json.dumps(known[name]), flush=True)
        found = {
            "measured": "counted on a stand-in for an accelerator of 80 GiB: Stable Diffusion 1.5 "
            f"at {SIDE_PX} px, bfloat16, {PHOTOS} photos of a person, no weights",
            "command": "python -m benchmarks.other_methods",
            "rows": [known[each] for each in sorted(known)],
        }
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
