"""One photo set -> protected photos and their commit record. Models are loaded once per worker.

Knows the ledger and the method. Knows no Ray: a pool makes a ``PhotoSetWorker`` per process, a test
just calls it.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, Literal

from dladiff.results import Cost, SetResult
from pipeline.errors import BrokenSetup, ConfigurationError, DeviceFault, trouble_named
from pipeline.images.files import PhotoLimits
from pipeline.output.ledger import Attempt, Ledger
from pipeline.reasons import Reason
from pipeline.records import CommitRecord, PhotoSet, ReadPhoto, UnchangedPhoto
from pipeline.storage.store import Store
from pipeline.worker.code_digest import code_digest
from pipeline.worker.compute_set import cost_of_both, decode_group, protect_group
from pipeline.worker.decode_alone import DECODING_LIMIT_S, MAX_WAIT_S, refuse_deadly_photos
from pipeline.worker.describe_set import (
    UnstagedPhoto,
    describe_group,
    failed_rows,
    in_plan_order,
    refused_rows,
    stage_photos,
)
from pipeline.worker.hang_watch import LOADING_LIMIT_S, HangWatch
from pipeline.worker.known_photos import stage_known
from pipeline.worker.preflight import protect_built_in_photo
from pipeline.worker.progress import SayProgress, SetProgress
from pipeline.worker.protector import LoadProtector, Protector, load_protector
from pipeline.worker.set_inputs import PhotoGroup, RefusedPhoto, groups_within, sort_inputs
from pipeline.worker.settings import SetOutcome, WorkerSettings
from pipeline.worker.troubles import environment_trouble
from pipeline.worker.turns import Turn, Turns

logger = logging.getLogger("dladiff.worker")


class PhotoSetWorker:
    """Protects photo sets in this process.

    May be called from two threads at once: then a set computes while the files of the one before
    are encoded and written.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        live_nodes: Callable[[], Collection[str]] = tuple,
        *,
        load: LoadProtector = load_protector,
        store: Store | None = None,
        say_progress: SayProgress = lambda *_: None,
    ) -> None:
        """Loads all models, unless ``settings`` leave that to the first set that needs them.

        Args:
            settings: From the driver.
            live_nodes: Says which nodes of the cluster live, by the names of ``settings.node``.
            load: Loads what computes a set.
            store: OUTPUT; None: as the settings say.
            say_progress: Told while a set is computed.

        Raises:
            ConfigurationError: If this process runs other code than the driver.
            ModelError: If weights are missing or damaged.
        """
        if settings.code_digest != code_digest():
            raise ConfigurationError(
                "this worker's dladiff differs from the driver's: give all nodes the same image"
            )
        self.settings = settings
        self._method = settings.config.method
        self._operation = settings.config.operation
        self._watch = HangWatch(self._operation.set_time_limit_s)
        self._turns = Turns()
        self._say_progress = say_progress
        self._load, self._is_tried = load, False
        self._first_step_cpu_s: float | None = None
        self._loaded: Protector | None = None
        if settings.load_at_start:
            self._compute()
        self._store = store or settings.output_store()
        self._ledger = Ledger(
            self._store,
            settings.run_id,
            node=settings.node,
            live_nodes=live_nodes,
            columns=settings.row_columns(),
        )
        self._limits = PhotoLimits.of(self._operation)
        self._max_set_pixels = int(self._operation.max_set_megapixels * 1e6)
        self._must_leave = False

    def _compute(self) -> Protector:
        """What computes, loaded once; sets take turns, so never by two at once."""
        if self._loaded is None:
            began = time.monotonic()
            with self._watch.watching(max(LOADING_LIMIT_S, self._operation.set_time_limit_s)):
                loaded = _in_one_thread(self._load, self.settings)
            took, device = time.monotonic() - began, self.settings.device
            logger.info("models loaded in %.1f s on %s", took, device)
            self._watch.arm()
            self._loaded = loaded
        return self._loaded

    def __call__(self, photo_set: PhotoSet, reads: Sequence[ReadPhoto]) -> SetOutcome:
        """Decides a photo set, or defers it; lets nothing out but the end of the process.

        Args:
            photo_set: The work.
            reads: One per photo, then one per reference.
        """
        with self._turns.take() as turn, self._watch.watching():
            if self._must_leave:
                # A CUDA error leaves the context unusable; Ray starts a new process.
                turn.be_alone()
                os._exit(1)
            started = time.monotonic()
            try:
                return self._decide(photo_set, reads, turn, started)
            except BrokenSetup:
                raise
            except BaseException as error:  # SystemExit too: it would end the whole run
                trouble = environment_trouble(error)
                self._must_leave |= trouble is None or isinstance(trouble, DeviceFault)
                cause = trouble.cause if trouble else f"worker_{type(error).__name__}"
                logger.warning("photo set deferred: %s", cause)
                logger.debug("photo set %s deferred", photo_set.key, exc_info=error)
                return _deferred(photo_set, cause, started)

    def _decide(
        self, photo_set: PhotoSet, reads: Sequence[ReadPhoto], turn: Turn, started: float
    ) -> SetOutcome:
        begun = self._ledger.begin(
            photo_set,
            max_crashed=self._operation.max_crashed_attempts,
            max_lost=self._operation.max_lost_attempts,
        )
        if isinstance(begun, CommitRecord):
            return _decided(begun, "already")
        try:
            for read in reads:
                if read.cause is not None:
                    raise trouble_named(read.cause)
            if begun.after_crashes:
                turn.be_alone()  # it may end the process, and would take the other set along
            record = self._work(photo_set, reads, begun, turn, started)
            won = self._ledger.commit(record)
        except BaseException as error:
            trouble = environment_trouble(error)
            if trouble:  # a deferral is no crash
                self._ledger.close(begun, trouble.cause)
            elif isinstance(error, BrokenSetup):
                self._ledger.close(begun, "broken_setup")
            raise
        logger.debug("photo set %s of %s: %s", photo_set.key, photo_set.identity, record.outcome)
        decided = _decided(record, "committed" if won else "already")
        return replace(decided, first_step_cpu_s=self._first_step_cpu_s)

    def _work(
        self,
        photo_set: PhotoSet,
        reads: Sequence[ReadPhoto],
        attempt: Attempt,
        turn: Turn,
        started: float,
    ) -> CommitRecord:
        """Computes and stages a set group after group; passes the turn on before the last staging.

        So there are never more pixels than one group's, and those of the set before that are still
        to be written.
        """
        if attempt.after_crashes:
            reads = refuse_deadly_photos(
                reads, self._limits, DECODING_LIMIT_S, lambda: self._watch.arm(2 * MAX_WAIT_S)
            )
            self._watch.arm()
        inputs = sort_inputs(
            photo_set, reads, self._limits, keep_references=self._method.num_references > 0
        )
        record = CommitRecord(
            set_key=photo_set.key,
            generation=photo_set.generation,
            identity=photo_set.identity,
            run_id=self.settings.run_id,
            attempt=attempt.id,
            outcome="done",
            rows=[],
            unchanged=[
                UnchangedPhoto(photo.source.uri, photo.source.version, photo.source.previous_sha256)
                for photo in inputs.unchanged
            ],
        )
        rows, left = stage_known(inputs.known, photo_set, attempt, self._ledger, self._store)
        known = [photo for photo, _ in inputs.known if photo not in left]
        inputs.compute_too(left)
        refused, cost = list(inputs.refused), Cost()
        progress = SetProgress(photo_set.key, self._method, self._say_progress)
        try:
            groups = groups_within(inputs, self._max_set_pixels)
            for number, group in enumerate(groups, start=1):
                progress.begin_group(len(group.photos))
                photos, of_group = self._protect(group, photo_set, refused, progress)
                cost = cost_of_both(cost, of_group)
                if number == len(groups):
                    turn.pass_on()
                rows += stage_photos(photos, photo_set, attempt, self._ledger, self._store)
        except Exception as error:
            if environment_trouble(error):
                raise
            self._try_out()
            logger.warning("photo set failed twice: %s", type(error).__name__)
            logger.debug("photo set %s failed", photo_set.key, exc_info=error)
            reason = Reason(type(error).__name__)
            record.outcome, record.reason = "failed", str(reason)
            rows = failed_rows(photo_set, [*inputs.to_do, *known], refused, reason)
        rows += refused_rows(photo_set, refused)
        record.seconds = time.monotonic() - started
        record.gpu_seconds, record.cost = cost.gpu_seconds, asdict(cost)
        num_photos = len(photo_set.photos)
        record.rows = [
            replace(
                staged,
                row=replace(
                    staged.row,
                    seconds=record.seconds / num_photos,
                    gpu_seconds=record.gpu_seconds / num_photos,
                ),
            )
            for staged in in_plan_order(photo_set, rows)
        ]
        return record

    def _try_out(self) -> None:
        """Is it the photos, or this process? Asked once, where the first photos fail.

        Raises:
            BrokenSetup: The built-in photo is not protected either.
        """
        if self._is_tried:
            return
        self._is_tried = True
        try:
            protect_built_in_photo(self._compute(), self._method)
        except Exception as error:
            if environment_trouble(error):
                raise
            raise BrokenSetup(f"not even the built-in photo was protected: {error}") from error

    def _protect(
        self,
        group: PhotoGroup,
        photo_set: PhotoSet,
        refused: list[RefusedPhoto],
        progress: SetProgress,
    ) -> tuple[list[UnstagedPhoto], Cost]:
        """Decodes and protects one group; the originals' pixels are gone when this returns.

        Args:
            refused: Gets the photos whose pixels are damaged, also where the method then fails.
        """
        decoded = decode_group(group, self._limits, self._watch.arm)
        refused += decoded.damaged

        def hear(stage: str, fraction: float) -> None:
            self._watch.arm()
            if self._first_step_cpu_s is None:
                self._first_step_cpu_s = time.process_time()
            progress.hear(stage, fraction)

        computed = protect_group(
            decoded,
            lambda *arguments: self._compute()(*arguments),
            self._method,
            hear,
            content_decides=self.settings.config.output.format == "same",
        )
        self._watch.arm()
        self._is_tried = True
        return describe_group(computed, photo_set, self._method), computed.result.cost


def _in_one_thread(load: LoadProtector, settings: WorkerSettings) -> Protector:
    """Loads what computes, and lets it compute, in a thread of its own, whoever calls.

    The number of CPU threads is a setting of the thread that computes, and so are their pools.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
    protect = thread.submit(load, settings).result()

    def in_thread(*arguments: Any) -> SetResult:
        return thread.submit(protect, *arguments).result()

    return in_thread


def _decided(record: CommitRecord, outcome: Literal["committed", "already"]) -> SetOutcome:
    return SetOutcome(
        set_key=record.set_key,
        generation=record.generation,
        outcome=outcome,
        statuses=record.statuses(),
        seconds=record.seconds,
        gpu_seconds=record.gpu_seconds,
        stage_seconds=record.cost.get("seconds", {}),
    )


def _deferred(photo_set: PhotoSet, cause: str, started: float) -> SetOutcome:
    return SetOutcome(
        set_key=photo_set.key,
        generation=photo_set.generation,
        outcome="deferred",
        statuses={"deferred": len(photo_set.photos)},
        cause=cause,
        seconds=time.monotonic() - started,
    )
