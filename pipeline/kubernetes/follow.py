"""Runs a RayJob to its end: create it or take it over, then look at it until it is over."""

import logging
import time
from typing import Any

from pipeline.errors import ClusterUnreachable, ConfigurationError
from pipeline.kubernetes.api import RayJobApi
from pipeline.kubernetes.rayjob import Owner, RayJobState, belongs_to

logger = logging.getLogger("dladiff.kubernetes")


def run_rayjob(
    api: RayJobApi, rayjob: dict[str, Any], owner: Owner | None = None, poll_s: float = 15.0
) -> RayJobState:
    """Creates a RayJob, or takes over the one of its name, and waits for its end.

    A pod that is killed while it waits can simply be started again. Polls: one small read every
    few seconds costs the API less than the code that keeps a watch alive would cost us.

    Args:
        rayjob: With name and namespace.
        owner: Job that a RayJob of this name must belong to; None: any is taken over.
        poll_s: Seconds between two looks.

    Returns:
        The state it ended in.

    Raises:
        ConfigurationError: The cluster refuses, or the name is another Job's.
        ClusterUnreachable: The API is gone for minutes, or the RayJob was deleted meanwhile.
    """
    name, namespace = rayjob["metadata"]["name"], rayjob["metadata"]["namespace"]
    if api.create(namespace, rayjob):
        logger.info("created RayJob %s", name)
    else:
        logger.info("RayJob %s exists already: waiting for it", name)
        _require_ours(api.read(namespace, name), name, owner)
    seen = None
    while True:
        found = api.read(namespace, name)
        if found is None:
            raise ClusterUnreachable(
                f"RayJob {name} was deleted before it ended: the next run goes on where it stopped"
            )
        state = RayJobState.of(found)
        if state != seen:
            logger.info("RayJob %s: %s", name, state.describe())
            seen = state
        if state.ended:
            return state
        time.sleep(poll_s)


def _require_ours(rayjob: dict[str, Any] | None, name: str, owner: Owner | None) -> None:
    if rayjob is not None and owner is not None and not belongs_to(rayjob, owner):
        raise ConfigurationError(
            f"a RayJob {name} exists that this Job did not create: give the CronJob another name, "
            f"or delete it (kubectl delete rayjob {name})"
        )
