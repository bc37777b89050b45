"""One part of the people: its photos of INPUT against what OUTPUT remembers of them.

Reads no photo and writes nothing. ``plan`` puts the parts together.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.catalog.folder import find_gone
from pipeline.catalog.output_keys import assign_output_keys
from pipeline.catalog.photos import Catalog
from pipeline.config import RunConfig
from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.output.manifest import SourceState
from pipeline.planning.decisions import Decision, DecisionRules
from pipeline.planning.known_content import handed_on
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.uris import root_of

TO_DO: tuple[Decision, ...] = ("new", "changed", "method_changed", "retry")


@dataclass
class PartOfPlan:
    """What was decided for one part of the people."""

    to_do: list[SourcePhoto] = field(default_factory=list)
    originals: list[SourcePhoto] = field(default_factory=list)
    """Photos that may serve as references for those to do."""
    decided: Counter[Decision] = field(default_factory=Counter)
    """Photos by what was decided for them."""
    refused: Counter[str] = field(default_factory=Counter)
    """Photos that another method decided on, by run id."""
    num_below_target: int = 0
    returned: list[SourcePhoto] = field(default_factory=list)
    gone: dict[str, SourceState] = field(default_factory=dict)
    heirs: dict[str, tuple[str, SourceState]] = field(default_factory=dict)
    """Whose key a photo takes over, by the photo's URI."""
    num_present: int = 0
    """Photos of INPUT that OUTPUT remembers and that were there."""


def decide_part(
    catalog: Catalog,
    states: Mapping[str, SourceState],
    strays: Mapping[str, str],
    config: RunConfig,
    rules: DecisionRules,
) -> PartOfPlan:
    """Decides for each photo of a part whether it is to do.

    Args:
        catalog: With the photos of these people only, forgotten ones left out.
        states: Newest decisions on the photos of these people.
        strays: See ``KnownStates.strays``.
        config: Of this run.
        rules: What a person asked for, and the method of this run.

    Raises:
        ConfigurationError: A catalog's output key is taken.
    """
    part = PartOfPlan()
    present = [] if config.operation.increment else _present_in_input(states, catalog)
    part.num_present = len(present)
    part.gone = {uri: states[uri] for uri in find_gone(catalog, present)}
    heirs = handed_on(catalog.photos, states, catalog, rules)
    part.heirs = {new: (old, states[old]) for new, old in heirs.items()}
    photos = assign_output_keys(catalog.photos, _held(states, strays, heirs), catalog.given_keys)
    for photo in photos:
        if photo.uri in part.gone:  # a catalog file may still name it
            continue
        state = states.get(photo.uri)
        decision = rules.decide(photo, state)
        part.decided[decision] += 1
        if decision == "unchanged" and state is not None:
            part.num_below_target += state.target_met is False
        if decision == "refused" and state is not None:
            part.refused[state.run_id] += 1
        elif decision == "returned":
            part.returned.append(photo)
        elif decision in TO_DO:
            if state is not None and decision in ("changed", "new"):
                photo = _with_previous(photo, rules, state)
            part.to_do.append(photo)
    part.originals = _originals(part.to_do, photos, states, config)
    return part


def _present_in_input(states: Mapping[str, SourceState], catalog: Catalog) -> list[str]:
    """URIs of photos that were in INPUT when they were last seen."""
    return [
        uri
        for uri, state in states.items()
        if state.status != "source_gone"
        and state.version != MISSING_VERSION
        and root_of(uri, catalog.roots) is not None
        and not catalog.is_out_of_sight(uri)
    ]


def _held(
    states: Mapping[str, SourceState], strays: Mapping[str, str], heirs: Mapping[str, str]
) -> dict[str, str]:
    """Keys that OUTPUT holds and that nobody takes over, by the URI of their photo."""
    given_up = frozenset(heirs.values())
    of_others = {uri: key for key, uri in strays.items() if uri not in given_up}
    return of_others | {
        uri: state.output_key
        for uri, state in states.items()
        if state.output_key and uri not in given_up
    }


def _with_previous(photo: SourcePhoto, rules: DecisionRules, state: SourceState) -> SourcePhoto:
    if photo.uri in rules.reprotect:
        return photo
    return dataclasses.replace(photo, previous_sha256=rules.previous_sha256(state))


def _originals(
    to_do: Iterable[SourcePhoto],
    photos: Iterable[SourcePhoto],
    states: Mapping[str, SourceState],
    config: RunConfig,
) -> list[SourcePhoto]:
    """References only feed layer 1's fine-tuning on the clean photos (Step 0)."""
    if not min_photos_of_set(config):
        return []
    identities = {photo.identity for photo in to_do}
    found = []
    for photo in photos if identities else ():
        state = states.get(photo.uri)
        usable = state is None or state.status in PROTECTED_STATUSES
        whole = photo.version != MISSING_VERSION
        small_enough = photo.size_bytes <= config.operation.max_photo_bytes
        if photo.identity in identities and usable and whole and small_enough:
            found.append(photo)
    return found


def min_photos_of_set(config: RunConfig) -> int:
    """Smaller sets are filled up to this with references; 0: none are."""
    return config.method.num_references
