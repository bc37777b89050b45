"""What published models cost a photo, as tables: ``results/model_cost.json``, seconds derived."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.published_models import AUTOENCODERS
from dladiff.accelerator import Precision
from dladiff.config import PresetName, preset_settings
from dladiff.layer1.counted_cost import GPU_TFLOPS, PassCost, gpu_seconds

_RESULTS = Path(__file__).resolve().parents[2] / "results" / "model_cost.json"
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


MODEL_TABLES = {"model-passes": passes_table, "model-presets": presets_table}
"""By the name in the marker."""
