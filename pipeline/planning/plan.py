"""What is to do: the catalog less what OUTPUT already holds, as photo sets.

Knows the newest manifest row of every source. Reads no photo and writes nothing.
"""

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.catalog.folder import find_gone
from pipeline.catalog.output_keys import assign_output_keys
from pipeline.catalog.photos import Catalog, CatalogReport
from pipeline.config import RunConfig
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.options import PlanCounts
from pipeline.output.manifest import SourceState
from pipeline.planning.decisions import Decision, DecisionRules
from pipeline.planning.form_sets import form_sets
from pipeline.planning.known_content import handed_on, num_moved, with_twins
from pipeline.planning.order_of_work import order_of_work
from pipeline.planning.refusals import (
    refuse_another_method,
    refuse_no_photo,
    refuse_vanished_input,
)
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import MISSING_VERSION, PhotoSet, SourcePhoto, num_photos_of
from pipeline.storage.uris import root_of

_TO_DO: tuple[Decision, ...] = ("new", "changed", "method_changed", "retry")


@dataclass(frozen=True)
class PhotoCounts:
    """Photos of the catalog by what the plan decided for them."""

    found: int = 0
    new: int = 0
    """Never decided on, or gone and back."""
    changed: int = 0
    """Another version than the one decided on; the worker may still find the same content."""
    method_changed: int = 0
    retry: int = 0
    unchanged: int = 0
    """Decided, and nothing to do."""
    below_target: int = 0
    """Of the unchanged ones: protected, and the target likeness was missed."""
    standing_failure: int = 0
    """Failed or quarantined before, and not asked for again."""
    ignored: int = 0
    """Files of INPUT that are no photos."""
    moved: int = 0
    """Of the gone ones, those that seem to lie elsewhere in INPUT."""
    returned: int = 0
    """Gone before, and back as they were: their protected photo holds on."""
    gone: int = 0
    """Decided photos that INPUT no longer holds."""
    forgotten: int = 0
    """Photos of people whom ``dladiff forget`` took out of OUTPUT: they are not taken again."""

    @property
    def to_do(self) -> int:
        return self.new + self.changed + self.method_changed + self.retry


@dataclass(frozen=True)
class Plan:
    """The work of one run."""

    photo_sets: list[PhotoSet]
    """In the order of work."""
    counts: PhotoCounts
    gone_rows: list[ManifestRow]
    """With status ``source_gone``, for ``fold.write_part``."""
    catalog_report: CatalogReport
    returned: list[SourcePhoto] = field(default_factory=list)
    """Photos that were gone and are back as they were, for ``repeated_rows.rows_of_returned``."""
    handed_on: dict[str, ManifestRow] = field(default_factory=dict)
    """Rows of photos of another INPUT which are nowhere any more and hand their key on, by the URI
    of the photo that takes it over; they hold once that one is decided."""
    later_sets: list[PhotoSet] = field(default_factory=list)
    """Left for a later run by ``limited_to``."""

    @property
    def num_bytes(self) -> int:
        """Encoded bytes to read, references included."""
        return sum(
            photo.size_bytes
            for photo_set in self.photo_sets
            for photo in (*photo_set.photos, *photo_set.references)
        )

    def limited_to(self, max_sets: int | None) -> "Plan":
        """The same plan with its first sets only; None: all of them."""
        return dataclasses.replace(
            self,
            photo_sets=self.photo_sets[:max_sets],
            later_sets=[] if max_sets is None else self.photo_sets[max_sets:],
        )

    def summary(self) -> PlanCounts:
        """The same in numbers that a reporter shows; carries no names."""
        ages = [
            time.time() - photo.modified_s
            for photo_set in (*self.photo_sets, *self.later_sets)
            for photo in photo_set.photos
            if photo.modified_s is not None
        ]
        return PlanCounts(
            num_photos=num_photos_of(self.photo_sets),
            num_sets=len(self.photo_sets),
            num_unchanged=self.counts.unchanged
            + self.counts.returned
            + self.counts.standing_failure,
            num_returned=self.counts.returned,
            num_below_target=self.counts.below_target,
            num_gone=self.counts.gone,
            num_moved=self.counts.moved,
            num_handed_on=len(self.handed_on),
            num_forgotten=self.counts.forgotten,
            num_identities=len({photo_set.identity for photo_set in self.photo_sets}),
            num_bytes=self.num_bytes,
            oldest_unprotected_age_s=max(ages, default=None),
            num_later=num_photos_of(self.later_sets),
            passed_over=dict(self.catalog_report.ignored),
            passed_over_types=self.catalog_report.types_without_names(),
        )


def make_plan(
    catalog: Catalog,
    states: Mapping[str, SourceState],
    config: RunConfig,
    rules: DecisionRules,
    *,
    output_uri: str,
    method_of_run: Callable[[str], Mapping[str, Any] | None] | None = None,
    decided_generations: Mapping[str, int] | None = None,
    is_forgotten: Callable[[str], bool] = lambda _: False,
) -> Plan:
    """Decides for each photo whether it is to do, and forms photo sets of those that are.

    Args:
        catalog: All photos of INPUT.
        states: ``manifest.newest_state``: the newest decision by source URI.
        config: Of this run.
        rules: What a person asked for, and the method of this run.
        output_uri: OUTPUT, for the URIs of gone photos' outputs.
        method_of_run: ``method`` settings of an earlier run by its id, to show the difference.
        decided_generations: ``Ledger.decided_generations`` of the run that will work on this plan;
            a set planned again gets the next one.
        is_forgotten: ``Tombstones.hold``, of an identity.

    Raises:
        ConfigurationError: OUTPUT was made with another method and ``refuse`` holds, a catalog's
            output key is taken, INPUT holds no photo, or it lost all its files at once.
    """
    taken = [photo for photo in catalog.photos if not is_forgotten(photo.identity)]
    states = {uri: each for uri, each in states.items() if not is_forgotten(each.identity)}
    present = [] if config.operation.increment else _present_in_input(states, catalog)
    gone = find_gone(catalog, present)
    moved = num_moved(gone, taken, states)
    refuse_vanished_input(catalog, len(gone) - moved, len(present), config.operation)
    if config.operation.shard is None:  # a shard may have nobody
        refuse_no_photo(catalog, states)
    heirs = handed_on(taken, states, catalog, rules)
    given_up = frozenset(heirs.values())
    held = {
        uri: state.output_key
        for uri, state in states.items()
        if state.output_key and uri not in given_up
    }
    photos = assign_output_keys(taken, held, catalog.given_keys)
    numbers: Counter[Decision] = Counter()
    refused: Counter[str] = Counter()
    num_below_target = 0
    to_do: list[SourcePhoto] = []
    returned: list[SourcePhoto] = []
    missing = frozenset(gone)  # a catalog file may still name them
    for photo in photos:
        if photo.uri in missing:
            continue
        state = states.get(photo.uri)
        decision = rules.decide(photo, state)
        numbers[decision] += 1
        if decision == "unchanged" and state is not None:
            num_below_target += state.target_met is False
        if decision == "refused" and state is not None:
            refused[state.run_id] += 1
        elif decision == "returned":
            returned.append(photo)
        elif decision in _TO_DO:
            if decision in ("changed", "new") and photo.uri not in rules.reprotect:
                photo = dataclasses.replace(photo, previous_sha256=rules.previous_sha256(state))
            to_do.append(photo)
    refuse_another_method(refused, config, method_of_run)
    to_do = with_twins(to_do, states, rules)
    photo_sets = order_of_work(_form_sets(to_do, photos, states, config, rules.method_digest))
    return Plan(
        photo_sets=[_of_generation(each, decided_generations or {}) for each in photo_sets],
        counts=PhotoCounts(
            found=len(catalog.photos),
            forgotten=len(catalog.photos) - len(taken),
            ignored=catalog.report.num_ignored,
            gone=len(gone),
            moved=moved,
            returned=len(returned),
            new=numbers["new"],
            changed=numbers["changed"],
            method_changed=numbers["method_changed"],
            retry=numbers["retry"],
            unchanged=numbers["unchanged"],
            below_target=num_below_target,
            standing_failure=numbers["standing_failure"],
        ),
        gone_rows=[_gone_row(uri, states[uri], output_uri) for uri in gone],
        catalog_report=catalog.report,
        returned=returned,
        handed_on={new: _handed_on_row(old, states[old]) for new, old in heirs.items()},
    )


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


def _form_sets(
    to_do: list[SourcePhoto],
    photos: list[SourcePhoto],
    states: Mapping[str, SourceState],
    config: RunConfig,
    method_digest: str,
) -> list[PhotoSet]:
    operation = config.operation
    originals: defaultdict[str, list[SourcePhoto]] = defaultdict(list)
    # References only feed layer 1's fine-tuning on the clean photos (Step 0).
    reads_references = config.method.layer1.enabled and config.method.other.name is None
    min_photos = config.method.max_reference_photos if reads_references else 0
    if min_photos:
        identities = {photo.identity for photo in to_do}
        for photo in photos:
            state = states.get(photo.uri)
            usable = state is None or state.status in PROTECTED_STATUSES
            whole = photo.version != MISSING_VERSION
            small_enough = photo.size_bytes <= operation.max_photo_bytes
            if photo.identity in identities and usable and whole and small_enough:
                originals[photo.identity].append(photo)
    return form_sets(
        to_do,
        originals,
        method_digest,
        max_photos=operation.max_set_photos,
        max_bytes=operation.max_set_bytes,
        min_photos=min_photos,
    )


def _of_generation(photo_set: PhotoSet, decided: Mapping[str, int]) -> PhotoSet:
    if photo_set.key not in decided:
        return photo_set
    return dataclasses.replace(photo_set, generation=decided[photo_set.key] + 1)


def _gone_row(uri: str, state: SourceState, output_uri: str) -> ManifestRow:
    """The output stays where it is and keeps its key, so it stays in the row as well."""
    key = state.output_key
    return ManifestRow(
        identity=state.identity,
        source_uri=uri,
        source_version=state.version,
        source_bytes=state.num_bytes,
        source_sha256=state.sha256,
        output_uri=f"{output_uri.rstrip('/')}/{key}" if key else None,
        output_sha256=state.output_sha256,
        status="source_gone",
        reason=str(ReasonCode.NOT_IN_INPUT),
        method_digest=state.method_digest,
    )


def _handed_on_row(uri: str, state: SourceState) -> ManifestRow:
    """Of a photo whose protected file is another one's from now on."""
    return ManifestRow(
        identity=state.identity,
        source_uri=uri,
        source_version=state.version,
        source_bytes=state.num_bytes,
        source_sha256=state.sha256,
        status="source_gone",
        reason=str(Reason(ReasonCode.NOT_IN_INPUT, "a photo of another INPUT took over its key")),
        method_digest=state.method_digest,
    )
