"""What is to do: the catalog less what OUTPUT already holds, as photo sets.

Goes through INPUT and the decisions on it a part of the people at a time, so that neither has to
lie in memory whole. Reads no photo and writes nothing.
"""

import dataclasses
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.catalog.photos import Catalog, CatalogReport, Photos
from pipeline.config import RunConfig
from pipeline.manifest_row import ManifestRow
from pipeline.options import PlanCounts
from pipeline.output.manifest import SourceState
from pipeline.planning.decide_part import PartOfPlan, decide_part, min_photos_of_set
from pipeline.planning.decisions import Decision, DecisionRules
from pipeline.planning.form_sets import form_sets
from pipeline.planning.known_content import TwinsBySize
from pipeline.planning.known_states import KnownStates
from pipeline.planning.planned_sets import PlannedSets, SetTotals
from pipeline.planning.refusals import (
    refuse_another_method,
    refuse_no_photo,
    refuse_vanished_input,
)
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import PhotoSet, SourcePhoto
from pipeline.storage.spool import NUM_PARTS, PeopleSpool, part_of
from pipeline.storage.uris import root_of


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
    """How many unchanged photos are protected and missed the target likeness."""
    standing_failure: int = 0
    """Failed or quarantined before, and not asked for again."""
    ignored: int = 0
    """Files of INPUT that are no photos."""
    moved: int = 0
    """How many gone photos seem to lie elsewhere in INPUT."""
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

    photo_sets: PlannedSets
    """In the order of work."""
    counts: PhotoCounts
    gone_rows: list[ManifestRow]
    """Rows of status ``source_gone``, for ``fold.write_part``."""
    catalog_report: CatalogReport
    returned: list[SourcePhoto] = field(default_factory=list)
    """Photos that were gone and are back as they were, for ``repeated_rows.rows_of_returned``."""
    handed_on: dict[str, ManifestRow] = field(default_factory=dict)
    """Rows of photos of another INPUT which are nowhere any more and hand their key on, by the URI
    of the photo that takes it over; they hold once that one is decided."""
    later_sets: PlannedSets | None = None
    """Left for a later run by ``limited_to``; None: no set is."""

    @property
    def totals(self) -> SetTotals:
        """What the sets of this run come to."""
        return self.photo_sets.totals()

    @property
    def oldest_later_upload(self) -> float | None:
        """When the oldest photo left for a later run was uploaded, Unix time; None: unknown."""
        return None if self.later_sets is None else self.later_sets.totals().oldest_upload_s

    def limited_to(self, max_sets: int | None) -> "Plan":
        """The same plan with its first sets only; None: all of them."""
        if max_sets is None:
            return self
        return dataclasses.replace(
            self,
            photo_sets=self.photo_sets[:max_sets],
            later_sets=self.photo_sets[max_sets:],
        )

    def summary(self) -> PlanCounts:
        """The same in numbers that a reporter shows; carries no names."""
        totals = self.totals
        later = None if self.later_sets is None else self.later_sets.totals()
        uploads = [one.oldest_upload_s for one in (totals, later) if one is not None]
        oldest = min((upload for upload in uploads if upload is not None), default=None)
        return PlanCounts(
            num_photos=totals.num_photos,
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
            num_identities=totals.num_identities,
            num_bytes=totals.num_bytes,
            oldest_unprotected_age_s=None if oldest is None else time.time() - oldest,
            num_later=0 if later is None else later.num_photos,
            passed_over=dict(self.catalog_report.ignored),
            passed_over_types=self.catalog_report.types_without_names(),
        )


def make_plan(
    catalog: Catalog,
    states: KnownStates,
    config: RunConfig,
    rules: DecisionRules,
    *,
    output_uri: str,
    method_of_run: Callable[[str], Mapping[str, Any] | None] | None = None,
    decided_generations: Mapping[str, int] | None = None,
    is_forgotten: Callable[[str], bool] = lambda _: False,
    with_key: Callable[[SourcePhoto], SourcePhoto] = lambda photo: photo,
) -> Plan:
    """Decides for each photo whether it is to do, and forms photo sets of those that are.

    Args:
        catalog: All photos of INPUT.
        states: What OUTPUT remembers, beside these very photos.
        config: Of this run.
        rules: What a person asked for, and the method of this run.
        output_uri: OUTPUT, for the URIs of gone photos' outputs.
        method_of_run: ``method`` settings of an earlier run by its id, to show the difference.
        decided_generations: ``Ledger.decided_generations`` of the run that will work on this plan;
            a set planned again gets the next one.
        is_forgotten: ``Tombstones.hold``, of an identity.
        with_key: Gives a photo the key that this OUTPUT would like it to have.

    Raises:
        ConfigurationError: OUTPUT was made with another method and ``refuse`` holds, a catalog's
            output key is taken, INPUT holds no photo, or it lost all its files at once.
    """

    def remembered(part: Mapping[str, SourceState]) -> dict[str, SourceState]:
        return {uri: state for uri, state in part.items() if not is_forgotten(state.identity)}

    sums, work = _Sums(bool(states)), _Work(config, rules, bool(states), decided_generations or {})
    for photos, part_states in _parts(catalog, states):
        known = remembered(part_states)
        taken = [with_key(photo) for photo in photos if not is_forgotten(photo.identity)]
        of_part = dataclasses.replace(catalog, photos=taken)
        part = decide_part(of_part, known, states.strays, config, rules)
        sums.add(part, of_part, known)
        work.add(part)
    refuse_vanished_input(
        catalog, sums.num_gone - sums.num_moved, sums.num_present, config.operation
    )
    if config.operation.shard is None:  # a shard may have nobody
        refuse_no_photo(catalog, knows_input=sums.knows_input)
    refuse_another_method(sums.refused, config, method_of_run)
    return Plan(
        photo_sets=work.photo_sets(map(remembered, states.parts())),
        counts=sums.counts(catalog),
        gone_rows=[_gone_row(uri, state, output_uri) for uri, state in sums.gone.items()],
        catalog_report=catalog.report,
        returned=sums.returned,
        handed_on={new: _handed_on_row(old, state) for new, (old, state) in sums.heirs.items()},
    )


def _parts(
    catalog: Catalog, states: KnownStates
) -> Iterator[tuple[list[SourcePhoto], Mapping[str, SourceState]]]:
    """The photos of each part of the people and the decisions on them.

    All at once where a catalog file gives output keys, which have to be compared with everybody's.
    """
    photos = catalog.photos
    if catalog.given_keys or not isinstance(photos, Photos):
        every = {uri: state for part in states.parts() for uri, state in part.items()}
        yield [*photos], every
        return
    for number in range(NUM_PARTS):
        found, known = photos.part(number), states.part(number)
        if found or known:
            yield found, known


class _Sums:
    """What the parts of a plan come to."""

    def __init__(self, knows_any: bool) -> None:
        """
        Args:
            knows_any: Whether OUTPUT remembers anything; else nothing is gone.
        """
        self._knows_any = knows_any
        self.decided, self.refused = Counter[Decision](), Counter[str]()
        self.num_below_target = self.num_present = self.num_taken = 0
        self.knows_input = False
        """Whether OUTPUT has a decision on any photo of INPUT, gone or not."""
        self.gone: dict[str, SourceState] = {}
        self.returned: list[SourcePhoto] = []
        self.heirs: dict[str, tuple[str, SourceState]] = {}
        # Of photos that OUTPUT does not know: perhaps some that are gone lie there now.
        self._new_versions = array("q")

    def add(self, part: PartOfPlan, catalog: Catalog, states: Mapping[str, SourceState]) -> None:
        self.decided += part.decided
        self.refused += part.refused
        self.num_below_target += part.num_below_target
        self.num_present += part.num_present
        self.num_taken += len(catalog.photos)
        self.knows_input = self.knows_input or any(root_of(uri, catalog.roots) for uri in states)
        self.gone |= part.gone
        self.returned += part.returned
        self.heirs |= part.heirs
        if self._knows_any:
            new = (photo for photo in catalog.photos if photo.uri not in states)
            self._new_versions.extend(hash(photo.version) for photo in new)

    @property
    def num_gone(self) -> int:
        return len(self.gone)

    @property
    def num_moved(self) -> int:
        """Of photos that are gone, how many seem to lie elsewhere in INPUT: in size and time, or by
        a bucket's own hash."""
        if not self.gone:
            return 0
        versions = np.array([hash(state.version) for state in self.gone.values()], np.int64)
        return int(np.isin(versions, np.frombuffer(self._new_versions, np.int64)).sum())

    def counts(self, catalog: Catalog) -> PhotoCounts:
        return PhotoCounts(
            found=len(catalog.photos),
            forgotten=len(catalog.photos) - self.num_taken,
            ignored=catalog.report.num_ignored,
            gone=self.num_gone,
            moved=self.num_moved,
            returned=len(self.returned),
            new=self.decided["new"],
            changed=self.decided["changed"],
            method_changed=self.decided["method_changed"],
            retry=self.decided["retry"],
            unchanged=self.decided["unchanged"],
            below_target=self.num_below_target,
            standing_failure=self.decided["standing_failure"],
        )


class _Work:
    """Photos to do on their way into sets."""

    def __init__(
        self,
        config: RunConfig,
        rules: DecisionRules,
        knows_any: bool,
        generations: Mapping[str, int],
    ) -> None:
        """
        Args:
            knows_any: Whether OUTPUT remembers anything; else no photo has a twin.
        """
        self._config, self._rules, self._generations = config, rules, generations
        self._knows_any = knows_any
        self._planned = PlannedSets()
        self._to_do, self._originals = PeopleSpool[SourcePhoto](), PeopleSpool[SourcePhoto]()
        self._sizes = array("q")

    def add(self, part: PartOfPlan) -> None:
        """Takes a part's photos; which others have their size is known after the last part."""
        if not self._knows_any:
            self._planned.add(self._form(part.to_do, part.originals))
            return
        for photo in part.to_do:
            self._to_do.add(part_of(photo.identity), photo)
            self._sizes.append(photo.size_bytes)
        for photo in part.originals:
            self._originals.add(part_of(photo.identity), photo)

    def photo_sets(self, states: Iterable[Mapping[str, SourceState]]) -> PlannedSets:
        """All sets, once every part is taken.

        Args:
            states: What OUTPUT remembers, all parts in their order.
        """
        twins = TwinsBySize(self._sizes)
        if len(self._to_do):
            for number, known in enumerate(states):
                busy = {photo.uri for photo in self._to_do.part(number)}
                twins.add(known, busy, self._rules)
        for number in range(NUM_PARTS):
            if photos := self._to_do.part(number):
                with_twins = [twins.of(photo, self._rules) for photo in photos]
                self._planned.add(self._form(with_twins, self._originals.part(number)))
        self._planned.put_in_order()
        return self._planned

    def _form(
        self, photos: list[SourcePhoto], originals: Iterable[SourcePhoto]
    ) -> Iterator[PhotoSet]:
        operation = self._config.operation
        by_identity = defaultdict[str, list[SourcePhoto]](list)
        for photo in originals:
            by_identity[photo.identity].append(photo)
        for photo_set in form_sets(
            photos,
            by_identity,
            self._rules.method_digest,
            max_photos=operation.max_set_photos,
            max_bytes=operation.max_set_bytes,
            min_photos=min_photos_of_set(self._config),
        ):
            yield _of_generation(photo_set, self._generations)


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
    """The row of a photo whose protected file is another one's from now on."""
    reason = Reason(ReasonCode.NOT_IN_INPUT, "a photo of another INPUT took over its key")
    return dataclasses.replace(
        _gone_row(uri, state, output_uri=""),
        output_uri=None,
        output_sha256=None,
        reason=str(reason),
    )
