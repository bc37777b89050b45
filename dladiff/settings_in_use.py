"""Which settings a method reads, and the refusal of those that somebody sets in vain.

A setting that nothing reads would change the method's digest and not one byte of a photo. The
table below says when each is read; ``tests/dladiff/test_settings_in_use.py`` records what is read
while photos with and without a face are protected, and holds the table to it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dladiff.config import MethodSettings, Settings, preset_settings


@dataclass(frozen=True)
class _Rule:
    """Settings that are read under one condition."""

    keys: str
    """Paths with a blank between; one that ends in a dot stands for all below but ``enabled``."""
    is_read: Callable[[MethodSettings], bool]
    why_not: str
    """What else would have to be so, and what does what was meant."""

    def covers(self, path: str) -> bool:
        """Whether a leaf is one of these."""
        return any(
            path == key or (key.endswith(".") and path.startswith(key) and path != f"{key}enabled")
            for key in self.keys.split()
        )


def _loop_is_off(method: MethodSettings) -> bool:
    return not method.likeness_leads


_TRAINING = ("aspl", "caat", "fsmg", "metacloak-style", "simac")
"""Other methods that train a surrogate."""
_READ_BY_OTHERS = (
    "layer1.enabled",
    "layer1.epsilon_levels",
    "layer1.likeness.surroundings_levels",
    "layer1.surrogate.",
    "layer2.enabled",
    "layer2.epsilon_levels",
    "layer2.box_scale",
)
"""What methods of other papers read of both layers: budgets, masks, the checkpoint, judges."""


def _is_ours(method: MethodSettings) -> bool:
    return method.other.name is None


def _trains(method: MethodSettings) -> bool:
    return _is_ours(method) or method.other.name in _TRAINING


_IN_LOOP = "photos with a face go through the likeness loop; set {} instead"
_RULES = (
    _Rule(
        "other.num_steps other.step_size_levels",
        lambda method: not _is_ours(method),
        "our own method is at work, whose steps are layer1.likeness.num_steps and "
        "step_size_levels; set other.name, or take a preset such as mist",
    ),
    _Rule(
        "max_reference_photos layer1.surrogate.adaptation layer1.surrogate.lora_rank",
        _is_ours,
        "a method of another paper is at work, which trains whole surrogates on the photos alone",
    ),
    _Rule(
        "layer1.surrogate.step0_steps",
        lambda method: method.other.name in (None, "fsmg"),
        "of the other methods only fsmg trains a surrogate before its first step",
    ),
    _Rule(
        "layer1.surrogate.learning_rate layer1.surrogate.batch_size "
        "layer1.surrogate.weight_decay layer1.surrogate.max_grad_norm",
        _trains,
        "this method trains no surrogate",
    ),
    _Rule(
        "layer1.surrogate.prompt",
        lambda method: method.other.name not in ("facelock", "photoguard"),
        "this method reads no UNet",
    ),
    _Rule(
        "layer1. precision max_reference_photos",
        lambda method: method.layer1.enabled,
        "layer1.enabled is false (as in preset zero-shot), so no diffusion checkpoint is read; "
        "steps and budget of what is left are layer2.num_steps and layer2.epsilon_levels",
    ),
    _Rule(
        "masking.",
        lambda method: method.likeness_leads or not _is_ours(method),
        "the likeness loop is off, so that budgets are flat; set layer1.enabled=true and "
        "layer1.likeness.enabled=true",
    ),
    _Rule(
        "layer1.likeness. layer1.autoencoders",
        lambda method: method.likeness_leads or not _is_ours(method),
        "the likeness loop is off; layer1.num_epochs and layer2.num_steps are its steps' "
        "counterparts, or set layer1.enabled=true and layer1.likeness.enabled=true",
    ),
    _Rule("layer2.num_steps", _loop_is_off, _IN_LOOP.format("layer1.likeness.num_steps")),
    _Rule(
        "layer2.step_size_levels",
        _loop_is_off,
        _IN_LOOP.format("layer1.likeness.step_size_levels"),
    ),
    _Rule("layer2.stop_cosine", _loop_is_off, _IN_LOOP.format("layer1.likeness.stop_cosine")),
    _Rule("layer2.momentum", _loop_is_off, _IN_LOOP.format("layer1.likeness.momentum")),
    _Rule("layer2.crops_per_step", _loop_is_off, _IN_LOOP.format("layer1.likeness.num_steps")),
    _Rule(
        "layer2.mode layer2.grid_max_cells",
        _loop_is_off,
        "photos with a face go through the likeness loop, which works on the photo's own pixels; "
        "set layer1.likeness.enabled=false too, or take preset zero-shot or paper",
    ),
    _Rule(
        "layer1.likeness.photo_step_every layer1.likeness.finishing_steps "
        "layer1.likeness.photo_target_cosine",
        lambda method: method.layer2.enabled,
        "layer2.enabled is false, so no step looks at the photo itself; set layer2.enabled=true",
    ),
    _Rule(
        "layer2.mode layer2.epsilon_levels layer2.step_size_levels layer2.num_steps "
        "layer2.stop_cosine layer2.momentum layer2.crops_per_step layer2.jitter_px "
        "layer2.scale_range layer2.flip layer2.grid_max_cells layer2.transforms. "
        "layer2.transforms.enabled",
        lambda method: method.layer2.enabled,
        "layer2.enabled is false; set layer2.enabled=true",
    ),
    _Rule(
        "layer2.box_scale",
        lambda method: method.layer2.enabled or method.likeness_leads or not _is_ours(method),
        "layer2.enabled is false and the likeness loop is off; set layer2.enabled=true",
    ),
    _Rule(
        "layer2.grid_max_cells layer2.box_scale",
        lambda method: method.layer2.mode == "image" or method.likeness_leads,
        "layer2.mode is crop, which perturbs the aligned crop; set layer2.mode=image",
    ),
    _Rule(
        "masking.full_contrast_levels",
        lambda method: method.masking.floor_share < 1,
        "masking.floor_share is 1, a flat budget; set it below 1",
    ),
    _Rule(
        "layer1.joint_momentum",
        lambda method: method.layer1.joint_steps,
        "separate steps have no momentum; set layer1.joint_steps=true",
    ),
    _Rule(
        "layer1.surrogate.step0_steps max_reference_photos",
        lambda method: method.layer1.dual_surrogates,
        "without layer1.dual_surrogates=true there is no Step 0",
    ),
    _Rule(
        "layer1.surrogate_steps layer1.dynamic_reset_epochs",
        lambda method: method.layer1.dynamic_fine_tuning,
        "without layer1.dynamic_fine_tuning=true the dynamic surrogate does not learn",
    ),
    _Rule(
        "layer1.surrogate.learning_rate layer1.surrogate.batch_size "
        "layer1.surrogate.weight_decay layer1.surrogate.max_grad_norm",
        lambda method: method.layer1.dual_surrogates or method.layer1.dynamic_fine_tuning,
        "no surrogate learns; set layer1.dual_surrogates=true or layer1.dynamic_fine_tuning=true",
    ),
    _Rule(
        "layer1.surrogate.revision",
        lambda method: method.layer1.surrogate.checkpoint not in ("embedded", "attacker"),
        "only a hub checkpoint has revisions; set layer1.surrogate.checkpoint=ORG/NAME too",
    ),
    _Rule(
        "layer1.surrogate.lora_rank",
        lambda method: method.layer1.surrogate.adaptation == "lora",
        "layer1.surrogate.adaptation is full; set it to lora",
    ),
    _Rule(
        "layer1.views_per_photo layer1.view_shares",
        lambda method: method.layer1.use_views,
        "layer1.use_views is false; set layer1.use_views=true",
    ),
    _Rule(
        "layer1.transforms.",
        lambda method: method.layer1.transforms.enabled,
        "layer1.transforms.enabled is false; set it to true",
    ),
    _Rule(
        "layer2.transforms.",
        lambda method: method.layer2.transforms.enabled,
        "layer2.transforms.enabled is false; set it to true",
    ),
    _Rule(
        "detector.pack",
        lambda method: method.detector.kind == "insightface",
        "only insightface has packs; set detector.kind=insightface",
    ),
)

_SHARED_WITH_THE_LOOP = (
    "layer1.epsilon_levels",
    "layer1.transforms.",
    "layer1.surrogate.checkpoint",
    "layer1.surrogate.revision",
    "layer1.surrogate.resolution",
    "layer1.likeness.",
    "layer1.autoencoders",
    "layer1.enabled",
)
"""What the likeness loop reads of layer 1; all else there belongs to surrogates."""


def leaves(settings: Settings, prefix: str = "") -> dict[str, object]:
    """The values of a settings tree by their path, such as ``layer1.likeness.num_steps``.

    Lists of settings are one leaf.
    """
    found: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def changed_leaves(method: MethodSettings) -> set[str]:
    """The leaves whose values are neither the preset's nor the defaults: somebody chose them."""
    of_preset, usual = leaves(preset_settings(method.preset)), leaves(MethodSettings())
    return {
        path
        for path, value in leaves(method).items()
        if value not in (of_preset[path], usual[path])
    }


def unread_settings(method: MethodSettings) -> dict[str, str]:
    """The leaves that nothing reads under this method, on no photo, each with the reason."""
    unread: dict[str, str] = {}
    for path in leaves(method):
        if (
            not _is_ours(method)
            and path.startswith(("layer1.", "layer2."))
            and not path.startswith(_READ_BY_OTHERS)
        ):
            unread[path] = (
                f"{method.other.name} is at work, a method of another paper; its steps are "
                "other.num_steps and other.step_size_levels"
            )
            continue
        for rule in _RULES:
            if rule.covers(path) and not rule.is_read(method):
                unread[path] = rule.why_not
                break
    return unread


def read_without_face_alone(method: MethodSettings) -> set[str]:
    """The leaves that only photos without a face ask, since surrogates serve these alone."""
    if not method.likeness_leads:
        return set()
    of_surrogates = {
        path
        for path in leaves(method)
        if path == "max_reference_photos"
        or (path.startswith("layer1.") and not path.startswith(_SHARED_WITH_THE_LOOP))
    }
    return of_surrogates - set(unread_settings(method))


def refuse_unread(method: MethodSettings, given: Iterable[str] | None = None) -> None:
    """Refuses a method in which somebody has set what nothing will read.

    Args:
        method: As resolved.
        given: Paths of the leaves that were set, or of the sections that hold them; None: those
            of ``changed_leaves``.

    Raises:
        ValueError: With each such setting and what does what was meant.
    """
    if given is None:
        given = changed_leaves(method)
    paths = tuple(given)
    lines = [
        f"{path} has no effect here: {why}"
        for path, why in unread_settings(method).items()
        if any(path == one or path.startswith(f"{one}.") for one in paths)
    ]
    if lines:
        raise ValueError("\n".join(lines))
