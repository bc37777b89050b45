"""The driver's book-keeping while workers decide: publishing, folding, deferrals, the exit code.

Holds the lock of OUTPUT by contract. Knows no Ray.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from pipeline.config import OperationSettings
from pipeline.manifest_row import ManifestRow
from pipeline.options import (
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_FAILURES,
    EXIT_UNFINISHED,
    RunOptions,
    RunOutcome,
)
from pipeline.output.canary import CanaryFailed
from pipeline.output.fold import PUBLISHERS, Fold, write_part
from pipeline.output.ledger import Ledger
from pipeline.planning.planned_sets import PlannedSets
from pipeline.reach import Reach
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import CommitName, CommitRecord, PhotoSet, num_photos_of, photo_row
from pipeline.reporting.reach_words import target_shortfall
from pipeline.reporting.reporter import DecidedSet, Reporter
from pipeline.reporting.tally import Tally
from pipeline.reporting.words import format_count
from pipeline.storage.store import Store
from pipeline.worker.settings import SetOutcome

logger = logging.getLogger("dladiff.driver")

_RECENT_SETS = 100
_MAX_DEFERRED_OF_RECENT = 20
"""More deferrals than this among the last sets: the run stops instead of burning the queue."""
_MAX_DEFERRED_ROWS = 100_000
"""Photos that get a row though nothing was decided; the run's summary counts them all."""
_MAX_PUBLISHING = 4 * PUBLISHERS
"""Sets on their way to be served: bounds what a killed driver leaves to the next one."""


class TooManyDeferred(Exception):  # noqa: N818 - a reason to stop, not an error of ours
    """The environment is at fault too often to go on; the text is the most frequent cause."""


class LimitReached(Exception):  # noqa: N818 - a reason to stop, not an error
    """The run has spent what a person allowed it; the text names the limit."""


class Driver:
    """Takes outcomes of photo sets in any order and keeps OUTPUT and the reporter up to date."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        operation: OperationSettings,
        reporter: Reporter,
        tally: Tally,
        photo_sets: PlannedSets,
        fold: Fold,
        max_worker_hours: float | None = None,
    ) -> None:
        """Reads and writes nothing yet; ``tally`` hears what ``reporter`` hears.

        Args:
            fold: Of this run, under OUTPUT's lock, with the gate of its method.
            max_worker_hours: See ``RunOptions``.
        """
        self._store, self._run_id, self._fold = store, run_id, fold
        self._operation, self._reporter, self._tally = operation, reporter, tally
        self._ledger = Ledger(store, run_id)
        self._canary_failed = False
        self._taken: dict[CommitName, PhotoSet] = {}
        """Sets on their way to be served, or waiting for the gate."""
        self._computed: dict[str, float] = {}
        """Photos of sets on their way to be served, by the set's key."""
        self._waiting: list[CommitRecord] = []
        """Commits of this run whose images wait for the gate until they are released."""
        self._sets, self._num_undecided = photo_sets, len(photo_sets)
        self._causes: dict[str, str] = {}
        self._recent: deque[bool] = deque(maxlen=_RECENT_SETS)
        self._max_worker_hours, self._worker_s, self._limit_reached = max_worker_hours, 0.0, False
        self._started = self._folded = time.monotonic()
        self._own_cpu_s = time.process_time()
        self._first_step_cpu_s: float | None = None

    @property
    def num_undecided(self) -> int:
        """Sets that are neither committed nor quarantined yet."""
        return self._num_undecided

    def computed(self) -> Mapping[str, float]:
        """Photos of sets that are computed and not said to be decided; asked from another thread.

        Where sets take minutes, a set is heard of as published when the next one ends.
        """
        return self._computed.copy()

    @property
    def undecided(self) -> Iterator[PhotoSet]:
        """These sets in the plan's order, read as somebody goes through them."""
        return self._sets.undecided()

    def windows(self, size: int) -> Iterator[list[PhotoSet]]:
        """The undecided sets in the plan's order, some at a time; once through the plan."""
        after = 0
        while self._num_undecided:
            photo_sets, after = self._sets.window(size, after)
            if not photo_sets:
                return
            yield photo_sets

    @property
    def oldest_upload_left(self) -> float | None:
        """When the oldest photo was uploaded that is not decided or waits for the gate, Unix time;
        None: there is none, or its store does not say."""
        uploads = [*uploads_of(self._taken.values()), self._sets.oldest_undecided_upload()]
        return min((upload for upload in uploads if upload is not None), default=None)

    @property
    def is_waiting(self) -> bool:
        """Whether anything waits for the gate, of this run or of an earlier one."""
        return bool(self._fold.waiting)

    def take(self, outcome: SetOutcome) -> None:
        """Publishes a decided set in the background, or notes a deferral; folds when it is time.

        Waits only where much more is decided than the store takes.

        Raises:
            TooManyDeferred: The run had better stop.
            LimitReached: It has to.
            CanaryFailed: Nothing of this method is to be published.
            LockLostError: Another run took over.
        """
        self._worker_s += outcome.seconds
        if self._first_step_cpu_s is None and outcome.first_step_cpu_s is not None:
            self._first_step_cpu_s = self._own_cpu_s + outcome.first_step_cpu_s
        self._recent.append(outcome.outcome == "deferred")
        if outcome.outcome == "deferred":
            cause = outcome.cause or "unknown"
            self._causes[outcome.set_key] = cause
            self._reporter.deferred(cause)
            self._stop_if_hopeless()
            self._stop_at_limit()
            return
        photo_set = self._sets.find(outcome.set_key)
        if photo_set is None:  # Ray ran the task again: published before
            return
        self._reporter.worked(outcome.stage_seconds)
        self._take_commit(photo_set)
        self._hear_of_published(at_most=_MAX_PUBLISHING)
        self.judge_if_due()
        if time.monotonic() - self._folded > self._operation.fold_every_s:
            self.fold()
        self._stop_at_limit()

    def judge_if_due(self) -> None:
        """Lets the first photo sets of a new method be published, once there are enough of them.

        Raises:
            CanaryFailed: They are not good enough.
        """
        if self._fold.is_due:
            self._judge()

    def settle(self, stopped: bool) -> str | None:
        """Brings all that is decided into the manifest, once the workers have ended.

        Args:
            stopped: The plan is not done: a canary too small to be judged goes on waiting.

        Returns:
            Why nothing may be published, for a person; None: nothing hinders it.
        """
        self._take_unheard()
        message = None
        if self.is_waiting and not stopped:
            try:
                self._judge()
            except CanaryFailed as failure:
                message = str(failure)
        self.fold()
        return message

    def fold(self) -> None:
        """Brings all that is decided so far into the manifest, but for what waits for the gate."""
        self.wait_for_published()
        self._fold()
        self._folded = time.monotonic()

    def wait_for_published(self) -> None:
        """Returns when the images of all decided sets are where they are served.

        Raises:
            LockLostError: Another run took over.
        """
        self._hear_of_published(at_most=0)

    def close(self) -> None:
        """Ends what publishes in the background; call it while OUTPUT's lock is held."""
        self._fold.close()

    def record_undecided(self) -> None:
        """Writes ``deferred`` rows, so that a person finds the cause of what is left.

        All sets that were put off get theirs; of those that were not reached, the first ones: a
        plan of millions that is stopped must end within seconds.
        """
        rows = (
            photo_row(photo, "deferred", photo_set, self._reason_of(photo_set))
            for photo_set in self._put_off()
            for photo in photo_set.photos
        )
        write_part(self._store, self._run_id, [*islice(rows, _MAX_DEFERRED_ROWS)])

    def outcome(self, options: RunOptions, message: str | None = None) -> RunOutcome:
        """How the run ends, as exit code and numbers."""
        self.wait_for_published()
        _, num_left = self._sets.num_undecided()
        on_purpose = self._limit_reached or self._canary_failed
        num_put_off = num_photos_of(self._caused()) if on_purpose else num_left
        tally = self._tally
        waiting = Counter[str]()
        for record in self._waiting:
            waiting.update(record.statuses())
        published = tally.statuses - waiting
        counts = dict(published) | ({"deferred": num_put_off} if num_put_off else {})
        shortfalls = self._shortfalls()
        num_later = num_left - num_put_off
        seconds = time.monotonic() - self._started
        return RunOutcome(
            run_id=self._run_id,
            exit_code=self._exit_code(options, num_put_off, bool(shortfalls)),
            counts=counts,
            seconds=seconds,
            photos_per_s=tally.num_photos / seconds if seconds else 0.0,
            causes=dict(Counter(self._causes.values())),
            num_sets=tally.num_sets,
            gpu_seconds=tally.gpu_seconds,
            num_later=num_later + (tally.plan.num_later if tally.plan else 0),
            num_held=sum(one.num_photos for one in self._waiting),
            reach=tally.reach - sum(map(_reach_of, self._waiting), Reach()),
            shortfalls=shortfalls,
            first_step_cpu_s=self._first_step_cpu_s,
            message=message,
            num_gone=tally.plan.num_gone if tally.plan else 0,
            num_handed_on=tally.plan.num_handed_on if tally.plan else 0,
            passed_over=tally.plan.passed_over if tally.plan else {},
            passed_over_types=tally.plan.passed_over_types if tally.plan else {},
        )

    def _put_off(self) -> Iterator[PhotoSet]:
        """Undecided sets that the environment is to blame for: not those beyond a limit."""
        caused = self._caused()
        yield from caused
        if not (self._limit_reached or self._canary_failed):
            yield from (each for each in self._sets.undecided() if each.key not in self._causes)

    def _caused(self) -> list[PhotoSet]:
        """Undecided sets that were put off, each with a cause."""
        found = map(self._sets.find, self._causes)
        return [photo_set for photo_set in found if photo_set is not None]

    def _shortfalls(self) -> tuple[str, ...]:
        """What a person asked for and the decided photos did not reach."""
        tally, operation = self._tally, self._operation
        found = []
        if tally.failed_share > operation.max_failed:
            photos = format_count(tally.num_photos, "photo")
            found.append(
                f"{tally.num_failed:,} of {photos} failed, more than "
                f"operation.max_failed={operation.max_failed:g} allows"
            )
        if text := target_shortfall(tally.reach, operation.min_target_met):
            found.append(text)
        return tuple(found)

    def _exit_code(self, options: RunOptions, num_put_off: int, falls_short: bool) -> int:
        if self._canary_failed:  # running again would not help, nor would another cluster
            return EXIT_ERROR
        # A new cluster may not read such a folder either.
        is_denied = self._tally.plan is not None and self._tally.plan.num_denied > 0
        if num_put_off or (is_denied and not options.batch):
            return EXIT_UNFINISHED
        # A job controller would build a new cluster for nothing: the photos are decided.
        return EXIT_FAILURES if falls_short and not options.batch else EXIT_DONE

    def _reason_of(self, photo_set: PhotoSet) -> Reason:
        return Reason(self._causes.get(photo_set.key, ReasonCode.NOT_REACHED))

    def _take_commit(self, photo_set: PhotoSet) -> None:
        """Publishes a set that its worker has committed, or lets it wait for the gate."""
        self._sets.decide(photo_set.key)
        self._num_undecided -= 1
        self._causes.pop(photo_set.key, None)
        name = photo_set.key, photo_set.generation
        self._taken[name] = photo_set
        waiting = self._fold.take(name)
        if waiting is not None:
            self._waiting.append(waiting)
            self._reporter.held(waiting.num_photos)
            self._say_decided(waiting)
        else:
            self._computed[photo_set.key] = len(photo_set.photos)

    def _hear_of_published(self, at_most: int) -> None:
        """Reports what is published by now, waiting while more sets than these are on the way."""
        for record in self._fold.published(at_most):
            photo_set = self._taken.pop((record.set_key, record.generation))
            self._computed.pop(record.set_key, None)
            self._say_decided(record, _ages_s(uploads_of([photo_set])))

    def _say_decided(self, record: CommitRecord, ages_s: Sequence[float] = ()) -> None:
        counts, reach = record.statuses(), _reach_of(record)
        decided = DecidedSet(counts, record.seconds, record.gpu_seconds, ages_s, reach)
        self._reporter.set_decided(decided)

    def _take_unheard(self) -> None:
        """Takes what workers committed before they were stopped, but could no longer tell."""
        for set_key, generation in self._ledger.commit_names() if self._num_undecided else ():
            photo_set = self._sets.find(set_key)
            if photo_set is not None and photo_set.generation == generation:
                self._take_commit(photo_set)

    def _judge(self) -> None:
        """Judges what waits; if it is good, it is published now."""
        self.wait_for_published()
        try:
            self._fold.judge()
        except CanaryFailed:
            self._canary_failed = True
            raise
        self._folded = time.monotonic()
        # Whatever was taken and is not published yet has waited.
        self._reporter.released(self._tally.num_held, _ages_s(uploads_of(self._taken.values())))
        self._taken.clear()
        self._waiting.clear()

    def _stop_if_hopeless(self) -> None:
        if sum(self._recent) > _MAX_DEFERRED_OF_RECENT:
            cause, _ = Counter(self._causes.values()).most_common(1)[0]
            raise TooManyDeferred(cause)

    def _stop_at_limit(self) -> None:
        """Sets in flight are given up: their work is small beside that of the queue."""
        hours = self._max_worker_hours
        if hours is not None and self._worker_s >= hours * 3600 and self._num_undecided:
            self._limit_reached = True
            raise LimitReached(f"--max-worker-hours {hours:g} is spent")


def _reach_of(record: CommitRecord) -> Reach:
    return Reach.of(staged.row for staged in record.rows)


def uploads_of(photo_sets: Iterable[PhotoSet]) -> list[float]:
    """When the photos of sets were uploaded, seconds since the epoch, where that is known."""
    return [photo.modified_s for one in photo_sets for photo in one.photos if photo.modified_s]


def _ages_s(uploads: Sequence[float]) -> list[float]:
    """How many seconds ago these times were, seconds since the epoch."""
    now = time.time()
    return [now - upload for upload in uploads]


def gone_outputs(rows: Iterable[ManifestRow], store: Store) -> list[str]:
    """Keys of published photos whose originals are gone, for ``delete_gone_outputs``."""
    root = store.uri_of("images/")
    uris = [row.output_uri for row in rows]
    return [store.key_of(uri) for uri in uris if uri is not None and uri.startswith(root)]
