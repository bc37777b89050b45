"""The plan of a run as OUTPUT stands now: for a run, and for a look at what one would do.

Knows where OUTPUT keeps what ``plan`` needs. Writes nothing.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

from pipeline.catalog.photos import Catalog
from pipeline.config import RunConfig
from pipeline.output.ledger import Ledger
from pipeline.output.manifest import newest_state
from pipeline.output.runs import method_of_run
from pipeline.output.tombstones import Tombstones
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.identity_keys import hide_identities
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.selection import Condition, select_sources
from pipeline.storage.store import Store


def plan_against_output(
    catalog: Catalog,
    store: Store,
    config: RunConfig,
    rules: DecisionRules,
    run_id: str | None = None,
    reprotect: Sequence[str] = (),
) -> Plan:
    """Compares INPUT with what OUTPUT remembers.

    Args:
        store: OUTPUT; it need not exist yet.
        rules: What a person asked for, and the method of the run.
        run_id: Run that will work on the plan. Used again, e.g. by a RayJob's second try, it may
            hold decisions on the very same sets: these get their next generation. None: a new one.
        reprotect: Conditions, see ``Condition.parse``; photos that meet all are to do again.

    Raises:
        ConfigurationError: See ``make_plan``, ``hide_identities`` and ``Condition.parse``.
    """
    catalog = hide_identities(catalog, config.operation, store)
    exists = store.root_exists()
    conditions = [Condition.parse(text) for text in reprotect]
    if exists and conditions:
        rules = dataclasses.replace(rules, reprotect=select_sources(store, conditions))
    return make_plan(
        catalog,
        newest_state(store) if exists else {},
        config,
        rules,
        output_uri=store.uri,
        method_of_run=partial(method_of_run, store),
        decided_generations=Ledger(store, run_id).decided_generations() if run_id else {},
        is_forgotten=Tombstones(store).hold if exists else lambda _: False,
    )
