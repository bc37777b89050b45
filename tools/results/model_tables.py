"""What published models cost a photo, as tables: ``results/model_cost.json``, seconds derived."""

import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

from benchmarks.published_models import AUTOENCODERS
from dladiff.accelerator import Precision
from dladiff.config import OtherMethodName, PresetName, preset_settings
from dladiff.layer1.counted_cost import GPU_TFLOPS, PassCost, gpu_seconds

_RESULTS = Path(__file__).resolve().parents[2] / "results" / "model_cost.json"
_METHODS = _RESULTS.with_name("method_cost.json")
_PRESETS: tuple[PresetName, ...] = ("balanced", "discreet", "fast")


def passes_table() -> str:
    """One photo through each autoencoder and back."""
    lines = [
        "| autoencoder | side | TFLOP: encode, decode, back | GiB saved: float32, bfloat16 |",
        "| --- | --- | --- | --- |",
    ]
    for name, published in AUTOENCODERS.items():
        full, half = (_row(name, precision) for precision in ("float32", "bfloat16"))
        lines.append(
            f"| {published.title} | {full['resolution']} | {full['encode_tflop']:.1f}, "
            f"{full['decode_tflop']:.1f}, {full['back_tflop']:.1f} | {full['saved_gib']:.1f}, "
            f"{half['saved_gib']:.1f} |"
        )
    return "\n".join(lines)


def presets_table() -> str:
    """TFLOP of a photo's steps through an autoencoder, and seconds derived from them."""
    lines = [
        "| autoencoder | preset | TFLOP a photo | derived seconds: " + ", ".join(GPU_TFLOPS) + " |",
        "| --- | --- | --- | --- |",
    ]
    for name, published in AUTOENCODERS.items():
        for preset in _PRESETS:
            total = tflop_of_a_photo(name, preset)
            seconds = ", ".join(f"{each:.1f}" for each in gpu_seconds(total).values())
            lines.append(f"| {published.title} | `{preset}` | {total:.0f} | {seconds} |")
    return "\n".join(lines)


def tflop_of_a_photo(name: str, preset: PresetName) -> float:
    """All steps through the autoencoder, of one of four photos of a person."""
    row = _row(name, "float32")
    cost = PassCost(row["encode_tflop"], row["decode_tflop"], row["back_tflop"])
    return cost.of_a_photo(preset_settings(preset).loop)


def counted_memory_gib(name: str, precision: Precision) -> float:
    """The most that is alive while one photo goes through an autoencoder and back."""
    peak: float = _row(name, precision)["peak_gib"]
    return peak


def _row(name: str, precision: str) -> dict[str, Any]:
    (found,) = (row for row in _rows() if row["model"] == name and row["precision"] == precision)
    return found


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(_RESULTS.read_text())["rows"])


def methods_table() -> str:
    """A step of each method of others on Stable Diffusion 1.5."""
    rows = {row["method"]: row for row in json.loads(_METHODS.read_text())["rows"]}
    lines = ["| method | TFLOP a photo and step | GiB at most |", "| --- | --- | --- |"]
    for name in get_args(OtherMethodName):
        found = rows.get(name)
        cells = (
            f"{found['tflop_a_photo_and_step']:.1f} | {found['peak_gib']:.0f}"
            if found
            else "not counted |"
        )
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


MODEL_TABLES = {
    "model-passes": passes_table,
    "model-presets": presets_table,
    "model-methods": methods_table,
}
"""By the name in the marker."""
