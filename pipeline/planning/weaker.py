"""Settings that make protection weaker than the preset they start from, in words for a person."""

from typing import Any

from dladiff.config import MethodSettings, preset_settings

_LESS_IS_WEAKER = (
    "budget.fine_tuning_levels",
    "budget.zero_shot_levels",
    "budget.surroundings_levels",
    "budget.floor_share",
    "loop.num_steps",
    "loop.finishing_steps",
    "detector.max_faces",
)
_MORE_IS_WEAKER = (
    "loop.visibility_jod",
    "target_cosine",
    "detector.min_size_px",
    "detector.min_score",
)


def weaker_than_preset(method: MethodSettings) -> str | None:
    """``loop.num_steps 2 instead of 80``, and so on, as a sentence; None: nothing is weaker."""
    preset = preset_settings(method.preset)
    found = []
    if method.against != preset.against and preset.against == "all":
        found.append(f"against {method.against} instead of all")
    for sign, paths in ((1, _LESS_IS_WEAKER), (-1, _MORE_IS_WEAKER)):
        for path in paths:
            here, usual = _value(method, path), _value(preset, path)
            if sign * float(here) < sign * float(usual):
                found.append(f"{path} {_text(here)} instead of {_text(usual)}")
    if not found:
        return None
    return f"protection is weaker than preset {method.preset}: {', '.join(found)}"


def _value(settings: Any, path: str) -> float:
    for name in path.split("."):
        settings = getattr(settings, name)
    assert settings is None or isinstance(settings, (int, float)), path
    return settings or 0.0  # without a target of visibility none is kept


def _text(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
