"""A published autoencoder at its true size through ``dladiff protect``: seconds, memory, passes.

``python -m benchmarks.true_size --model sd15 --set loop.num_steps=3`` writes the autoencoder as its
configuration describes it, with random weights, in diffusers format; lets the command
protect photos of 512 px against it, beside the embedded one, on whatever device is there; and
prints a JSON line per preset, with what ``benchmarks.model_cost`` counted for the same. Random
weights cost what published ones do; what they show of a face means nothing.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import file_formats
from benchmarks.published_models import AUTOENCODERS, frozen
from benchmarks.whole_run import write_album
from dladiff.accelerator import best_device, is_accelerator, precision_on
from tools.results.model_tables import counted_memory_gib

_SIDE_PX = 512


def main() -> None:
    """Measures each preset that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sd15", choices=AUTOENCODERS)
    parser.add_argument("--preset", action="append", help="default: balanced")
    parser.add_argument("--photos", type=int, default=4, help="of one person")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_autoencoder(folder / "model", arguments.model)
        write_album(folder / "photos", arguments.photos, num_identities=1, side=_SIDE_PX)
        for preset in arguments.preset or ["balanced"]:
            overrides = [*arguments.overrides, of_folder(folder / "model", arguments.model)]
            measured = protect(folder / "photos", folder / preset, preset, overrides)
            facts = {"model": arguments.model, "device": device_name(), "preset": preset}
            facts |= {"set": arguments.overrides, "photos": arguments.photos}
            precision = precision_on(best_device(), "auto")
            facts["counted_peak_gib_a_photo"] = counted_memory_gib(arguments.model, precision)
            print(json.dumps(facts | measured), flush=True)


def write_autoencoder(folder: Path, model: str) -> None:
    """A published autoencoder in diffusers format, with random weights of seed 0."""
    torch.manual_seed(0)
    frozen(AUTOENCODERS[model].build()).save_pretrained(folder)


def of_folder(folder: Path, model: str) -> str:
    """The setting that names it."""
    named = {"checkpoint": str(folder), "resolution": AUTOENCODERS[model].resolution}
    return f"autoencoders={json.dumps([named])}"


def protect(photos: Path, output: Path, preset: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Runs the command with one worker; what the set's record says of its cost."""
    patient = [*overrides, "operation.set_time_limit_s=86400"]
    _, peak_gb = file_formats.protect(photos, output, preset, patient)
    (record,) = output.glob("runs/*/commits/*.json")
    cost = json.loads(record.read_text())["cost"]
    return {
        "seconds": {stage: round(seconds, 3) for stage, seconds in cost.pop("seconds").items()},
        "peak_gib": round(cost.pop("peak_memory_gb") * 1e9 / 2**30, 2),
        "peak_process_gib": round(peak_gb * 1e9 / 2**30, 2),
        **{name: value for name, value in cost.items() if value and not isinstance(value, dict)},
    }


def device_name() -> str:
    """Of the device that the command takes."""
    if is_accelerator(best_device()):
        return str(torch.cuda.get_device_name())
    return f"CPU, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
