"""What whoever takes OUTPUT's lock does first: it finishes what earlier runs left."""

from pipeline.output.fold import Fold
from pipeline.output.gate import Gates, waiting_records
from pipeline.output.lock import OutputLock
from pipeline.output.runs import finish_run, unfinished_runs
from pipeline.records import CommitRecord
from pipeline.storage.store import Store

ABANDONED_S = 900.0
"""A writer works on a temporary file for seconds; a worker of a dead run may still live."""


def recover(store: Store, run_id: str, lock: OutputLock) -> list[CommitRecord]:
    """Folds what crashed runs decided, and closes those that are not ours to go on with.

    Temporary files of killed writers go first: a folder that holds one is not removed.

    Returns:
        Commits whose images wait for the gate of their method, oldest run first: they, and their
        runs, stay as they are.
    """
    store.sweep(ABANDONED_S)
    all_waiting: list[CommitRecord] = []
    for unfinished in unfinished_runs(store):
        Fold(store, unfinished, lock.regain, gates=Gates(store))()
        waiting = waiting_records(store, unfinished)
        all_waiting += waiting
        if not waiting and unfinished != run_id:
            finish_run(store, unfinished, {"finished_by": run_id})
    return all_waiting
