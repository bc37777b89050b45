"""Measures layer 2: cosines of white-box and held-out encoders, before and after handling.

    python benchmarks/identity_transfer.py PHOTOS [--held-out MODEL.onnx] [--per-person 3]
        [--set layer2.num_steps=60 ...] [--threads 1]

PHOTOS is a folder with one folder of photos per person. Prints one row per photo and the shares
that reach the targets. CPU seconds are counted, not wall seconds, so that neighbours do not matter.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import yaml

from dladiff.config import MethodSettings, preset_settings
from dladiff.models import load_models
from dladiff.protect import protect_photo_set
from dladiff.results import Photo, PhotoResult


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    config = _config(arguments)
    cache = Path(tempfile.gettempdir()) / "dladiff-benchmark-cache"
    models = load_models(config, "cpu", cache)
    rows: list[PhotoResult] = []
    seconds = dict.fromkeys(("cpu", "layer2"), 0.0)
    people = sorted(folder for folder in arguments.photos.iterdir() if folder.is_dir())
    people = people[arguments.skip :][:: arguments.stride][: arguments.people]
    for person in people:
        files = sorted(person.glob("*.jpg"))[: arguments.per_person]
        photos = [_read(file) for file in files]
        start = time.process_time()
        result = protect_photo_set(photos, [], models, config)
        seconds["cpu"] += time.process_time() - start
        rows += result.photos
        if arguments.verbose:
            for row in result.photos:
                print(_line(row), flush=True)
    print(json.dumps(_summary(rows, seconds["cpu"], len(rows)), indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--per-person", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser


def _config(arguments: argparse.Namespace) -> MethodSettings:
    tree = preset_settings("zero-shot").model_dump(mode="json")
    for item in arguments.set:
        key, value = item.split("=", 1)
        *parents, last = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[last] = yaml.safe_load(value)
    if arguments.held_out:
        held_out = {"kind": "arcface_onnx", "path": str(arguments.held_out), "held_out": True}
        tree["layer2"]["encoders"].append({"name": "held_out", **held_out})
    return MethodSettings.model_validate(tree)


def _read(file: Path) -> Photo:
    with PIL.Image.open(file) as image:
        return Photo(f"{file.parent.name}/{file.name}", np.array(image.convert("RGB")))


def _line(row: PhotoResult) -> str:
    cosines = " ".join(
        f"{item.encoder} {item.before:.2f} {item.after:.2f} {item.after_handling:.2f}"
        for item in row.identity_cosines
    )
    changes = f"{row.max_change_levels}/{row.max_change_levels_outside_faces}"
    quality = f"{row.psnr_db or 0:.1f} dB, ssim {row.ssim or 0:.3f}"
    return f"{row.key} {row.status} {changes} levels, {quality} | {cosines}"


def _summary(rows: list[PhotoResult], cpu_s: float, num_photos: int) -> dict[str, object]:
    done = [row for row in rows if row.identity_cosines]
    summary: dict[str, object] = {
        "photos": num_photos,
        "without_face": sum(row.status == "skipped" for row in rows),
        "cpu_s_per_photo": round(cpu_s / num_photos, 2),
        "max_levels": max((row.max_change_levels or 0 for row in done), default=0),
        "max_levels_outside": max(
            (row.max_change_levels_outside_faces or 0 for row in done), default=0
        ),
        "psnr_db": round(float(np.mean([row.psnr_db for row in done])), 2),
        "ssim": round(float(np.mean([row.ssim for row in done])), 4),
        "target_met": round(float(np.mean([bool(row.target_met) for row in done])), 3),
    }
    if all(row.lpips is not None for row in done):
        summary["lpips"] = round(float(np.mean([row.lpips for row in done])), 4)
    for position, first in enumerate(done[0].identity_cosines):
        items = [row.identity_cosines[position] for row in done]
        after = np.array([item.after for item in items])
        handled = np.array([item.after_handling for item in items])
        summary[first.encoder] = {
            "before": round(float(np.mean([item.before for item in items])), 3),
            "after_mean": round(float(after.mean()), 3),
            "after_p95": round(float(np.quantile(after, 0.95)), 3),
            "share_after_under_.1": round(float((after <= 0.1).mean()), 3),
            "handled_mean": round(float(handled.mean()), 3),
            "share_handled_under_.3": round(float((handled <= 0.3).mean()), 3),
        }
    return summary


if __name__ == "__main__":
    sys.exit(main())
