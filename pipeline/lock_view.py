"""Who holds OUTPUT's lock, for a person who asks; reads only, ``lock`` takes and keeps it."""

import json
import re
import time
from dataclasses import dataclass

from pipeline.storage import Store

_EPOCH = re.compile(r"locks/(\d{8})\.json")


@dataclass(frozen=True)
class LockHolder:
    """The run that holds, or left behind, the newest lock."""

    run_id: str
    host: str
    silent_s: float
    """Seconds since its last sign of life, by this machine's clock: good to a few seconds."""


def read_lock(store: Store) -> LockHolder | None:
    """The holder of OUTPUT's lock; None: it is free, or was never taken."""
    epochs = [
        match.group(1) for info in store.list("locks/") if (match := _EPOCH.fullmatch(info.key))
    ]
    if not epochs or store.exists(f"locks/{max(epochs)}.released"):
        return None
    key = f"locks/{max(epochs)}"
    sign = store.info(f"{key}.heartbeat") or store.info(f"{key}.json")
    try:
        record = json.loads(store.read(f"{key}.json"))
    except FileNotFoundError:
        return None  # given back or taken over a moment ago
    silent_s = max(0.0, time.time() - sign.modified) if sign else 0.0
    return LockHolder(record["run_id"], record["host"], round(silent_s, 1))
