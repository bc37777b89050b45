"""The plan of a run as OUTPUT stands now: for a run, and for a look at what one would do.

Knows where OUTPUT keeps what ``plan`` needs. Writes nothing.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pipeline.catalog.output_keys import key_in_format
from pipeline.catalog.people import Takes, people_of
from pipeline.catalog.photos import Catalog, Photos
from pipeline.config import RunConfig
from pipeline.images.coding import can_write
from pipeline.output.gate import method_of, states_once_published
from pipeline.output.ledger import Ledger
from pipeline.output.manifest import SourceState, decisions
from pipeline.output.runs import method_of_run
from pipeline.output.tombstones import Tombstones
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.identity_keys import folder_rule
from pipeline.planning.known_states import KnownStates
from pipeline.planning.output_format import in_format_of
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.selection import Condition, select_sources
from pipeline.records import CommitRecord, SourcePhoto
from pipeline.storage.store import Store


def plan_beside_waiting(
    catalog: Catalog,
    store: Store,
    config: RunConfig,
    rules: DecisionRules,
    run_id: str | None,
    reprotect: Sequence[str],
    waiting: Sequence[CommitRecord],
) -> tuple[Plan, list[CommitRecord]]:
    """Plans likewise, but photos that wait for the gate of this method are decided.

    Returns:
        The plan, and the commits of ``waiting`` that stay. One with a photo that is to do again,
        since it changed, does not: which of two images would be served must not depend on an order.
    """
    kept = [record for record in waiting if method_of(record) == rules.method_digest]
    while True:
        states = states_once_published(kept)
        plan = plan_against_output(catalog, store, config, rules, run_id, reprotect, states)
        if not kept:
            return plan, kept
        again = {photo.uri for each in plan.photo_sets for photo in each.photos}
        still = [one for one in kept if again.isdisjoint(row.row.source_uri for row in one.rows)]
        if len(still) == len(kept):
            return plan, kept
        kept = still


def plan_against_output(
    catalog: Catalog,
    store: Store,
    config: RunConfig,
    rules: DecisionRules,
    run_id: str | None = None,
    reprotect: Sequence[str] = (),
    not_folded: Mapping[str, SourceState] | None = None,
) -> Plan:
    """Compares INPUT with what OUTPUT remembers.

    Args:
        store: OUTPUT; it need not exist yet.
        rules: What a person asked for, and the method of the run.
        run_id: Run that will work on the plan. Used again, e.g. by a RayJob's second try, it may
            hold decisions on the very same sets: these get their next generation. None: a new one.
        reprotect: Conditions, see ``Condition.parse``; photos that meet all are to do again.
        not_folded: Decisions that are not in the manifest yet, newer than those that are.

    Raises:
        ConfigurationError: See ``make_plan``, ``people_of``, ``folder_rule``, ``in_format_of``
            and ``Condition.parse``.
    """
    takes = people_of(catalog, config.operation)
    config = in_format_of(store, config)
    folder_of = folder_rule(config.operation, store)
    photos = catalog.photos if isinstance(catalog.photos, Photos) else Photos(catalog.photos)
    catalog = dataclasses.replace(catalog, photos=photos)
    exists = store.root_exists()
    conditions = [Condition.parse(text) for text in reprotect]
    if exists and conditions:
        rules = dataclasses.replace(rules, reprotect=select_sources(store, conditions))
    states = KnownStates(photos, folder_of)
    if exists:
        states.add(decisions(store, takes))
    states.add(_of(takes, not_folded or {}), is_ahead=True)

    def with_key(photo: SourcePhoto) -> SourcePhoto:
        if photo.uri in catalog.given_keys:
            return photo
        path = photo.output_key.split("/", 2)[2]
        key = f"images/{folder_of(photo.identity)}/{path}"
        key = key_in_format(key, config.output.format, can_write)
        return photo if key == photo.output_key else dataclasses.replace(photo, output_key=key)

    return make_plan(
        catalog,
        states,
        config,
        rules,
        output_uri=store.uri,
        method_of_run=partial(method_of_run, store),
        decided_generations=Ledger(store, run_id).decided_generations() if run_id else {},
        is_forgotten=Tombstones(store).hold if exists else lambda _: False,
        with_key=with_key,
    )


def _of(
    takes: Takes | None, states: Mapping[str, SourceState]
) -> Iterator[tuple[str, SourceState]]:
    return ((uri, one) for uri, one in states.items() if takes is None or takes(one.identity))
