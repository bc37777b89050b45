"""What published models cost a photo, as tables: ``results/model_cost.json``, seconds derived."""

import json
from functools import cache
from typing import Any, get_args

from benchmarks.published_models import AUTOENCODERS
from dladiff.accelerator import Precision
from dladiff.config import OtherMethodName, PresetName, preset_settings
from dladiff.layer1.counted_cost import GPU_TFLOPS, PassCost, gpu_seconds
from tools.results.markdown import RESULTS, markdown_table

_PRESETS: tuple[PresetName, ...] = ("balanced", "discreet", "fast")


def passes_table() -> str:
    """One photo through each autoencoder and back."""
    rows = []
    for name, published in AUTOENCODERS.items():
        full, half = (_row(name, precision) for precision in ("float32", "bfloat16"))
        passes = ", ".join(f"{full[f'{part}_tflop']:.1f}" for part in ("encode", "decode", "back"))
        saved = f"{full['saved_gib']:.1f}, {half['saved_gib']:.1f}"
        rows.append([published.title, str(full["resolution"]), passes, saved])
    header = ["autoencoder", "side", "TFLOP: encode, decode, back"]
    return markdown_table([*header, "GiB saved: float32, bfloat16"], rows)


def presets_table() -> str:
    """TFLOP of a photo's steps through an autoencoder, and seconds derived from them."""
    rows = []
    for name, published in AUTOENCODERS.items():
        for preset in _PRESETS:
            total = tflop_of_a_photo(name, preset)
            seconds = ", ".join(f"{each:.1f}" for each in gpu_seconds(total).values())
            rows.append([published.title, f"`{preset}`", f"{total:.0f}", seconds])
    header = ["autoencoder", "preset", "TFLOP a photo"]
    return markdown_table([*header, "derived seconds: " + ", ".join(GPU_TFLOPS)], rows)


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
    return tuple(json.loads((RESULTS / "model_cost.json").read_text())["rows"])


def methods_table() -> str:
    """A step of each method of others on Stable Diffusion 1.5."""
    counted = json.loads((RESULTS / "method_cost.json").read_text())["rows"]
    cells = {
        one["method"]: [f"{one['tflop_a_photo_and_step']:.1f}", f"{one['peak_gib']:.0f}"]
        for one in counted
    }
    rows = (
        [f"`{name}`", *cells.get(name, ["not counted", ""])] for name in get_args(OtherMethodName)
    )
    return markdown_table(["method", "TFLOP a photo and step", "GiB at most"], rows)


MODEL_TABLES = {
    "model-passes": passes_table,
    "model-presets": presets_table,
    "model-methods": methods_table,
}
"""By the name in the marker."""
