"""What the tables compare: our presets, ours less a part, methods of others, controls.

Data only. Trees of one method at several budgets are named ``method@budget``, so that an
evaluation joins them to a curve; ``protected`` is ``balanced``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Part = Literal[
    "presets", "ablations", "surrogates", "families", "baselines", "controls", "curves", "costs"
]

CPU_SECONDS = "16"
"""Per photo, for each method of others."""
OURS = ("--set", "threads=1", "--workers", "1", "--canary", "0")
"""As the methods of others are timed; a canary would hold photos back."""


@dataclass(frozen=True)
class Condition:
    """One protected tree."""

    name: str
    part: Part
    label: str
    """In the table."""
    options: tuple[str, ...]
    """Of ``dladiff protect``, or of ``tools.evaluation.protect_with``."""
    method: str | None = None
    """Of others, or a control; None: ours."""


def _ours(name: str, part: Part, label: str, *options: str) -> Condition:
    return Condition(name, part, label, options)


def _without(name: str, part: Part, label: str, *values: str) -> Condition:
    """``balanced`` with other settings."""
    return Condition(name, part, label, tuple(word for one in values for word in ("--set", one)))


def _surrogates(name: str, label: str, *values: str) -> Condition:
    """Layer 1 by surrogates, a third of their epochs."""
    ours = (
        "paper={crop: false, joint_steps: true, "
        "timestep_choice: stratified, include_largest_maps: false, drop_bos: true, "
        "use_views: true}"
    )
    if "paper.dynamic_fine_tuning=false" not in values:
        values = (*values, "paper.dynamic_reset_epochs=2")
    shared = (ours, "surrogates.num_epochs=10", "loop.num_steps=80")
    return _without(name, "surrogates", label, *shared, *values)


def _other(
    method: str, label: str, face_levels: str = "18", surroundings_levels: str = "3"
) -> Condition:
    budget = ("--face-levels", face_levels, "--surroundings-levels", surroundings_levels)
    part: Part = "baselines" if face_levels == "18" else "curves"
    options = (*budget, "--cpu-seconds", CPU_SECONDS)
    return Condition(f"{method}@{face_levels}", part, label, options, method)


def _at_cost(method: str, label: str, cpu_seconds: str) -> Condition:
    """At the whole budget with other work than ``CPU_SECONDS``."""
    budget = ("--face-levels", "18", "--surroundings-levels", "3", "--cpu-seconds", cpu_seconds)
    return Condition(f"{method}@{cpu_seconds}s", "costs", label, budget, method)


BALANCED = _ours("protected", "presets", "`balanced`")
_SEPARATE = "paper.joint_steps=false"
CONDITIONS: tuple[Condition, ...] = (
    _ours("protected@discreet", "presets", "`discreet`", "--preset", "discreet"),
    _ours("protected@strong", "presets", "`strong`", "--preset", "strong"),
    _ours("protected@fast", "presets", "`fast`", "--preset", "fast"),
    _ours("paper", "presets", "`paper`", "--preset", "paper"),
    _without("layer1-alone", "ablations", "layer 1 alone", "against=fine-tuning"),
    _ours("layer2-alone", "ablations", "layer 2 alone", "--preset", "zero-shot"),
    _without(
        "no-handling", "ablations", "no random handling in the loss",
        "handling=false",
    ),
    _without("no-mixtures", "ablations", "no mixtures", "loop.mixtures_per_step=0"),
    _without(
        "no-students", "ablations", "no students",
        "recognisers=[{name: sface, kind: sface}, {name: dlib, kind: dlib_resnet}]",
    ),
    _surrogates("surrogates", "surrogates in place of L_id"),
    _surrogates("no-dsur", "the same without DSUR", "paper.dual_surrogates=false"),
    _surrogates("no-adft", "the same without ADFT", "paper.dynamic_fine_tuning=false"),
    _surrogates("den-alone", "L_den alone", _SEPARATE, "surrogates.attention_steps=0"),
    _surrogates("att-alone", "L_att alone", _SEPARATE, "surrogates.denoising_steps=0"),
    _without(
        "sface-alone", "families", "SFace",
        "recognisers=[{name: sface, kind: sface}]",
    ),
    _without(
        "sface-family", "families", "SFace and its students",
        "recognisers=[{name: sface, kind: sface}, {name: plain, kind: student, role: beside},"
        " {name: mobile, kind: student, role: beside}]",
    ),
    _without(
        "dlib-alone", "families", "dlib's network",
        "recognisers=[{name: dlib, kind: dlib_resnet}]",
    ),
    _other("mist-untargeted", "Mist, untargeted"),
    _other("facelock", "FaceLock"),
    _other("simac", "SimAC"),
    _other("advdm", "AdvDM"),
    _other("mist", "Mist, targeted"),
    _other("fsmg", "FSMG"),
    _other("metacloak-style", "MetaCloak-style"),
    _other("aspl", "ASPL"),
    _other("caat", "CAAT"),
    _other("photoguard", "PhotoGuard's encoder attack"),
    _other("mist-untargeted", "Mist, untargeted, 12 levels", "12", "2"),
    _other("mist-untargeted", "Mist, untargeted, 8 levels", "8", "1.4"),
    _other("advdm", "AdvDM, 12 levels", "12", "2"),
    _other("advdm", "AdvDM, 8 levels", "8", "1.4"),
    _other("facelock", "FaceLock, 12 levels", "12", "2"),
    _at_cost("mist-untargeted", "Mist, untargeted, 5 CPU seconds", "5"),
    _at_cost("mist-untargeted", "Mist, untargeted, 48 CPU seconds", "48"),
    Condition(
        "sampled_face", "controls", "our losses, away from a sampled face", (), "sampled_face"
    ),
    Condition("borrowed", "controls", "our change of another face", (), "borrowed"),
    Condition("sign_noise", "controls", "sign noise", (), "sign_noise"),
)  # fmt: skip
PARTS = tuple(dict.fromkeys(condition.part for condition in CONDITIONS))


def conditions_of(parts: Iterable[str]) -> list[Condition]:
    """Those of some parts, in the table's order; ``balanced`` comes first and always."""
    wanted = set(parts)
    return [BALANCED, *(condition for condition in CONDITIONS if condition.part in wanted)]
