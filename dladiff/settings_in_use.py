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
    """Paths with a blank between; one that ends in a dot stands for all below."""
    is_read: Callable[[MethodSettings], bool]
    why_not: str
    """What else would have to be so, and what does what was meant."""

    def covers(self, path: str) -> bool:
        """Whether a leaf is one of these."""
        return any(
            path.startswith(key) if key.endswith(".") else path == key for key in self.keys.split()
        )


_TRAINING = ("aspl", "caat", "fsmg", "metacloak-style", "simac")
"""Other methods that train a surrogate."""


def _is_ours(method: MethodSettings) -> bool:
    return method.other is None


def _surrogates_learn(method: MethodSettings) -> bool:
    if method.other is not None:
        return method.other in _TRAINING
    return method.layers.dual_surrogates or method.layers.dynamic_fine_tuning


def _in_loop(method: MethodSettings) -> bool:
    return method.likeness_leads


_RULES = (
    _Rule(
        "model. autoencoders surrogates. precision budget.fine_tuning_levels",
        lambda method: method.reads_model,
        "against is zero-shot (as in preset zero-shot), so no diffusion checkpoint is read; steps "
        "and budget of what is left are loop.num_steps and budget.zero_shot_levels",
    ),
    _Rule(
        "budget.surroundings_levels budget.floor_share",
        lambda method: _in_loop(method) or not _is_ours(method),
        "the loop is off, so that budgets are flat; take preset balanced, or against=all",
    ),
    _Rule(
        "loop.visibility_jod loop.photo_step_every loop.finishing_steps loop.photo_target_cosine "
        "loop.mixtures_per_step autoencoders",
        _in_loop,
        "the loop is off; its counterparts are loop.num_steps, loop.step_size_levels and "
        "surrogates.num_epochs, or take preset balanced, or against=all",
    ),
    _Rule(
        "loop.photo_step_every loop.finishing_steps loop.photo_target_cosine",
        lambda method: method.looks_at_photo,
        "against is fine-tuning, so that no step looks at the photo itself; set against=all",
    ),
    _Rule(
        "budget.zero_shot_levels target_cosine",
        lambda method: method.looks_at_photo,
        "against is fine-tuning, so that nothing is done against zero-shot adapters; set "
        "against=all",
    ),
    _Rule(
        "loop.num_steps loop.step_size_levels loop.stop_cosine",
        lambda method: _in_loop(method) or method.looks_at_photo,
        "against is fine-tuning: surrogates take all steps, see surrogates.num_epochs",
    ),
    _Rule(
        "loop.stop_cosine target_cosine handling paper",
        _is_ours,
        "a method of another paper is at work, whose steps are loop.num_steps and "
        "loop.step_size_levels",
    ),
    _Rule(
        "surrogates.adaptation surrogates.lora_rank "
        "surrogates.step_size_levels surrogates.num_epochs surrogates.attention_steps "
        "surrogates.denoising_steps surrogates.surrogate_steps surrogates.timesteps_per_step",
        _is_ours,
        "a method of another paper is at work, which trains whole surrogates on the photos alone; "
        "its steps are loop.num_steps and loop.step_size_levels",
    ),
    _Rule(
        "surrogates.step0_steps",
        lambda method: method.other in (None, "fsmg"),
        "of the other methods only fsmg trains a surrogate before its first step",
    ),
    _Rule(
        "surrogates.learning_rate surrogates.batch_size",
        _surrogates_learn,
        "no surrogate learns in this method",
    ),
    _Rule(
        "surrogates.prompt",
        lambda method: method.other not in ("facelock", "photoguard"),
        "this method reads no UNet",
    ),
    _Rule(
        "surrogates.step0_steps paper.max_reference_photos",
        lambda method: method.layers.dual_surrogates,
        "without paper.dual_surrogates=true there is no Step 0",
    ),
    _Rule(
        "surrogates.surrogate_steps paper.dynamic_reset_epochs",
        lambda method: method.layers.dynamic_fine_tuning,
        "without paper.dynamic_fine_tuning=true the dynamic surrogate does not learn",
    ),
    _Rule(
        "surrogates.lora_rank",
        lambda method: method.surrogates.adaptation == "lora",
        "surrogates.adaptation is full; set it to lora",
    ),
    _Rule(
        "paper.crop",
        lambda method: method.looks_at_photo,
        "against is fine-tuning, so that no step looks at a crop; set against=all",
    ),
    _Rule(
        "paper.dual_surrogates paper.dynamic_fine_tuning paper.joint_steps "
        "paper.dynamic_reset_epochs paper.timestep_choice paper.include_largest_maps "
        "paper.drop_bos paper.use_views paper.max_reference_photos",
        lambda method: method.reads_model,
        "against is zero-shot, so that no surrogates are made; set against=all",
    ),
    _Rule(
        "budget.box_scale",
        lambda method: (
            not method.layers.crop
            and (method.looks_at_photo or _in_loop(method) or not _is_ours(method))
        ),
        "no mask lies over a face: paper.crop is true, or against fine-tuning",
    ),
    _Rule(
        "model.revision",
        lambda method: method.model.checkpoint not in ("embedded", "attacker"),
        "only a hub checkpoint has revisions; set model.checkpoint=ORG/NAME too",
    ),
    _Rule(
        "detector.pack",
        lambda method: method.detector.kind == "insightface",
        "only insightface has packs; set detector.kind=insightface",
    ),
)


def leaves(settings: Settings, prefix: str = "") -> dict[str, object]:
    """The values of a settings tree by their path, such as ``loop.num_steps``.

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
        if value not in (of_preset.get(path), usual.get(path))
    }


def unread_settings(method: MethodSettings) -> dict[str, str]:
    """The leaves that nothing reads under this method, on no photo, each with the reason."""
    unread: dict[str, str] = {}
    for path in leaves(method):
        for rule in _RULES:
            if rule.covers(path) and not rule.is_read(method):
                unread[path] = rule.why_not
                break
    return unread


def read_without_face_alone(method: MethodSettings) -> set[str]:
    """The leaves that only photos without a face ask, since surrogates serve these alone."""
    if not method.likeness_leads:
        return set()
    of_surrogates = {path for path in leaves(method) if path.startswith("surrogates.")}
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
