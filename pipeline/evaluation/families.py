"""Which judges are kin: recognisers of one family err alike, so a loss that saw one saw them all.

Knows kinds and names of encoders; no scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dladiff.config import EncoderSettings

_FAMILIES = {
    "sface": "SFace",
    "student": "SFace",  # distilled from it
    "dlib_resnet": "dlib",
    "arcface_onnx": "ArcFace",
    "clip": "CLIP",
}
"""Family by kind of encoder. What people bring as ArcFace-type files counts as one family: its
makers, data and losses are mostly the same, unless a person says which family theirs is of."""


@dataclass(frozen=True)
class Standing:
    """How far one judge is from the losses of the protections that it judges."""

    family: str
    in_loss: bool
    """It was in a loss itself."""
    kin_of_loss: bool
    """A member of its family was, itself included: no independent word."""


def family_of(kind: str) -> str:
    """The family of a kind of encoder; an unknown kind is a family of its own."""
    return _FAMILIES.get(kind, kind)


def standings(
    judges: Sequence[EncoderSettings],
    in_loss: Mapping[str, str],
    told: Mapping[str, str] | None = None,
) -> dict[str, Standing]:
    """Standing of each judge, by name.

    Args:
        judges: Whose.
        in_loss: Family by name of the encoders that were in a loss; empty where it is not known.
        told: Family by name of judges of which a person says it.
    """
    family = {judge.name: (told or {}).get(judge.name, family_of(judge.kind)) for judge in judges}
    of_losses = set(in_loss.values()) | {family[name] for name in family if name in in_loss}
    return {
        name: Standing(family[name], name in in_loss, family[name] in of_losses) for name in family
    }
