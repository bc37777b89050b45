"""Settings of earlier versions, and what they are now: nobody's file is read as something else."""

from collections.abc import Iterator, Mapping
from typing import Any

_MOVED = {
    "layer1.enabled": "against: `zero-shot` is what false was",
    "layer2.enabled": "against: `fine-tuning` is what false was",
    "layer1.epsilon_levels": "budget.fine_tuning_levels",
    "layer2.epsilon_levels": "budget.zero_shot_levels",
    "layer1.likeness.surroundings_levels": "budget.surroundings_levels",
    "masking.floor_share": "budget.floor_share",
    "layer2.box_scale": "budget.box_scale",
    "layer2.target_cosine": "target_cosine",
    "layer2.encoders": "recognisers",
    "layer1.likeness.more_encoders": "recognisers, with `role: beside`",
    "layer1.likeness.enabled": "paper: a mapping (preset paper) is what false was",
    "layer1.autoencoders": "autoencoders",
    "layer1.transforms.enabled": "handling, of both layers",
    "layer2.transforms.enabled": "handling, of both layers",
    "layer2.mode": "paper.crop",
    "max_reference_photos": "paper.max_reference_photos",
    "other.name": "other",
}
_MOVED |= {
    f"{old}.{name}": f"{new}.{name}"
    for old, new, names in (
        (
            "layer1.likeness",
            "loop",
            "num_steps step_size_levels visibility_jod photo_step_every finishing_steps "
            "stop_cosine photo_target_cosine mixtures_per_step",
        ),
        ("layer2", "loop", "num_steps step_size_levels stop_cosine"),
        ("other", "loop", "num_steps step_size_levels"),
        ("layer1.surrogate", "model", "checkpoint revision resolution"),
        (
            "layer1.surrogate",
            "surrogates",
            "prompt adaptation lora_rank learning_rate batch_size step0_steps",
        ),
        (
            "layer1",
            "surrogates",
            "step_size_levels num_epochs attention_steps denoising_steps surrogate_steps "
            "timesteps_per_step",
        ),
        (
            "layer1",
            "paper",
            "dual_surrogates dynamic_fine_tuning joint_steps dynamic_reset_epochs "
            "timestep_choice include_largest_maps drop_bos use_views",
        ),
    )
    for name in names.split()
}
_FIXED = (
    "layer1.joint_momentum",
    "layer1.views_per_photo",
    "layer1.view_shares",
    "layer1.likeness.momentum",
    "layer1.likeness.latent_noise",
    "layer1.likeness.view_shares",
    "layer1.likeness.crop_jitter",
    "layer1.surrogate.weight_decay",
    "layer1.surrogate.max_grad_norm",
    "layer2.momentum",
    "layer2.crops_per_step",
    "layer2.jitter_px",
    "layer2.scale_range",
    "layer2.flip",
    "layer2.grid_max_cells",
    "masking.full_contrast_levels",
)
"""Constants now, beside their use. So are the strengths of handling (``layer1.transforms``)."""


def what_became_of(path: str) -> str | None:
    """A sentence on a setting of an earlier version; None: it never was one."""
    if path in _MOVED:
        return f"{path} is now {_MOVED[path]}"
    if path in _FIXED or path.startswith(("layer1.transforms.", "layer2.transforms.")):
        return f"{path} is no setting any more: it is a constant"
    if path.partition(".")[0] in ("layer1", "layer2", "masking"):
        return (
            f"{path}: the sections layer1, layer2 and masking are now model, budget, loop, "
            "surrogates and paper"
        )
    return None


def former_settings(values: Any, above: str = "") -> Iterator[str]:
    """A sentence on each setting of an earlier version in a tree of values."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value and path not in _MOVED:
            yield from former_settings(value, f"{path}.")
        elif (sentence := what_became_of(path)) is not None:
            yield sentence


def record_as_now(method: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record of any version says of models and recognisers, under today's names.

    What is wanting was on.
    """
    found = dict(method)
    if "layer1" in method or "layer2" in method:
        layer1, layer2, other = (method.get(key) or {} for key in ("layer1", "layer2", "other"))
        likeness = layer1.get("likeness") or {}
        found["other"] = other.get("name")
        found["paper"] = None if likeness.get("enabled", True) else {}
        found["model"] = layer1.get("surrogate") or {}
        found["against"] = (
            "zero-shot"
            if not layer1.get("enabled", True)
            else "all"
            if layer2.get("enabled", True)
            else "fine-tuning"
        )
        found.setdefault("recognisers", [*_with_roles(layer2, likeness)])
    found["recognisers"] = [{"role": "lead", **one} for one in found.get("recognisers") or ()]
    return found


def _with_roles(
    layer2: Mapping[str, Any], likeness: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The recognisers of records from before there were roles."""
    names = set()
    for one in layer2.get("encoders") or ():
        names.add(one["name"])
        role = "judge" if one.get("held_out") else "lead"
        yield {key: value for key, value in one.items() if key != "held_out"} | {"role": role}
    for one in likeness.get("more_encoders") or ():
        if one["name"] not in names:
            yield {**one, "role": "beside"}
