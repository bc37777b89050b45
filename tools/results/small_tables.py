"""Small tables: presets from the settings, single measurements from their files in ``results/``."""

import json
from typing import Any

from dladiff.config import OwnPresetName, preset_settings
from tools.results.markdown import RESULTS, cosine, markdown_table

_MEANT_FOR: dict[OwnPresetName, str] = {
    "discreet": "a change that hardly shows, and little protection",
    "balanced": "a change that shows when a face is enlarged",
    "fast": "half the steps of `balanced`",
    "strong": "protection before looks: creases and blotches show",
    "zero-shot": "layer 2 alone: no diffusion model, nothing against fine-tuning",
    "paper": "the settings of the paper, full fine-tuning of surrogates, no L_id",
}


def presets_table() -> str:
    """What each preset lets a face keep, and the budgets of its settings."""
    looks = {row["preset"]: row["jod_at_2x"] for row in _read("looks")["rows"]}

    def row(name: OwnPresetName) -> list[str]:
        settings = preset_settings(name)
        budget, jod = settings.budget, settings.loop.visibility_jod
        face, around = settings.face_levels, settings.surroundings_levels
        if not settings.reads_model:
            jod, face, around = None, budget.zero_shot_levels, 0
        elif settings.paper is not None:  # no map: layer 1 has its budget everywhere
            jod, around = None, budget.fine_tuning_levels
        kept = f"{jod:g} JOD" if jod is not None else "what is left"
        if jod is None and name in looks:
            kept += f", about {looks[name]:.0f} JOD"
        title = f"`{name}`" + (" (default)" if name == "balanced" else "")
        return [title, kept, f"{face:g} / {around:g}", _MEANT_FOR[name]]

    header = ["preset", "what a face keeps of its looks"]
    header += ["at most, levels in faces / around", "for"]
    return markdown_table(header, [row(name) for name in _MEANT_FOR])


def looks_table() -> str:
    """What a change costs the eye and what it takes from recognisers, on one portrait."""
    found = _read("looks")
    clean = cosine(found["clean_autoencoder"])
    header = ["", "JOD at twice its size; at its own"]
    header += ["SFace on the photo; after JPEG 75 and half size"]
    header += [f"what the autoencoder shows to SFace (clean {clean})"]
    rows = [
        [
            f"`{one['preset']}`",
            f"{one['jod_at_2x']:.2f}; {one['jod_at_1x']:.2f}",
            f"{cosine(one['photo'])}; {cosine(one['handled'])}",
            cosine(one["autoencoder"]),
        ]
        for one in found["rows"]
    ]
    return markdown_table(header, rows)


def scale_table() -> str:
    """How long planning takes before workers start, and its memory."""
    rows = []
    for one in _read("scale")["rows"]:
        how = ", **extrapolated**" if one["extrapolated"] else ""
        costs = one["cpu_time"], f"{one['memory_gib']} GiB"
        rows.append([one["photos"], one["known"], *(f"{cost}{how}" for cost in costs)])
    header = ["photos", "OUTPUT knows", "CPU time until workers start", "memory"]
    return markdown_table(header, rows)


def overlap_table() -> str:
    """What the pipeline adds to sleeping work."""
    rows = [
        [
            str(one["workers"]),
            "yes" if one["overlap"] else "no",
            str(one["other_jobs"] or "none"),
            f"{one['longer_percent']:.1f} %",
            f"{one['of_bare_graph']:.2f}".removeprefix("0"),
        ]
        for one in _read("overlap")["rows"]
    ]
    header = ["workers", "`--overlap`", "other busy jobs", "longer"]
    return markdown_table([*header, "sets a second without work, of the bare graph's"], rows)


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


SMALL_TABLES = {
    "presets": presets_table,
    "looks": looks_table,
    "scale": scale_table,
    "overlap": overlap_table,
}
"""By the name in the marker."""
