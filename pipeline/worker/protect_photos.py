"""One photo set -> protected photos and their commit record. Models are loaded once per worker.

Knows the ledger and the method. Knows no Ray: a pool makes a ``PhotoSetWorker`` per process, a test
just calls it.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Literal

from dladiff.errors import PhotoError
from dladiff.results import Photo, PhotoResult, SetResult
from pipeline.errors import ConfigurationError, DeviceFault, trouble_named
from pipeline.images.files import DecodedPhoto, PhotoLimits, decode_photo, encode_png
from pipeline.manifest_row import ManifestRow, RowStatus
from pipeline.output.ledger import Attempt, Ledger
from pipeline.records import (
    CommitRecord,
    PhotoSet,
    ReadPhoto,
    SourcePhoto,
    StagedRow,
    photo_row,
)
from pipeline.storage.store import Store, open_store
from pipeline.worker.code_digest import code_digest
from pipeline.worker.hang_watch import HangWatch
from pipeline.worker.preflight import protect_built_in_photo
from pipeline.worker.protector import Protector, load_protector
from pipeline.worker.result_rows import result_row
from pipeline.worker.settings import SetOutcome, WorkerSettings
from pipeline.worker.troubles import environment_trouble, is_out_of_memory

logger = logging.getLogger("dladiff.worker")

_ENCODERS = 4
"""Threads that encode and write protected photos of a set; both mostly wait or leave the GIL."""


@dataclass(eq=False)
class _Input:
    """One photo of a set on its way to the method."""

    source: SourcePhoto
    read: ReadPhoto
    decoded: DecodedPhoto | None = None
    reason: str | None = None
    """Why it was not decoded."""
    result: PhotoResult | None = None


class PhotoSetWorker:
    """Protects photo sets, one after another, in this process."""

    def __init__(
        self,
        settings: WorkerSettings,
        live_nodes: Callable[[], Collection[str]] = tuple,
        *,
        load: Callable[[WorkerSettings], Protector] = load_protector,
        store: Store | None = None,
    ) -> None:
        """Loads all models.

        Args:
            settings: From the driver.
            live_nodes: Says which nodes of the cluster live, by the names of ``settings.node``.
            load: Loads what computes a set.
            store: OUTPUT; None: as the settings say.

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
        self._watch.arm()
        self._compute = load(settings)
        if settings.preflight:
            protect_built_in_photo(self._compute, self._method)
        self._watch.disarm()
        self._store = store or open_store(
            settings.output_uri, single_writer=settings.config.operation.single_writer
        )
        self._ledger = Ledger(
            self._store,
            settings.run_id,
            node=settings.node,
            live_nodes=live_nodes,
            columns=settings.row_columns(),
        )
        self._must_leave = False

    def __call__(self, photo_set: PhotoSet, reads: Sequence[ReadPhoto]) -> SetOutcome:
        """Decides a photo set, or defers it; lets nothing out but the end of the process.

        Args:
            photo_set: The work.
            reads: One per photo, then one per reference.
        """
        if self._must_leave:  # a CUDA error leaves the context unusable; Ray starts a new process
            os._exit(1)
        started = time.monotonic()
        self._watch.arm()
        try:
            return self._decide(photo_set, reads, started)
        except BaseException as error:  # SystemExit too: it would end the whole run
            trouble = environment_trouble(error)
            self._must_leave = trouble is None or isinstance(trouble, DeviceFault)
            cause = trouble.cause if trouble else f"worker_{type(error).__name__}"
            logger.warning("photo set deferred: %s", cause)
            logger.debug("photo set %s deferred", photo_set.key, exc_info=error)
            return _deferred(photo_set, cause, started)
        finally:
            self._watch.disarm()

    def _decide(
        self, photo_set: PhotoSet, reads: Sequence[ReadPhoto], started: float
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
                if read.environment:
                    raise trouble_named(read.reason)
            record = self._work(photo_set, reads, begun, started)
            won = self._ledger.commit(record)
        except BaseException as error:
            trouble = environment_trouble(error)
            if trouble:  # a deferral is no crash
                self._ledger.close(begun, trouble.cause)
            raise
        return _decided(record, "committed" if won else "already")

    def _work(
        self, photo_set: PhotoSet, reads: Sequence[ReadPhoto], attempt: Attempt, started: float
    ) -> CommitRecord:
        inputs = self._decode(photo_set.photos, reads)
        references = self._decode(photo_set.references, reads[len(photo_set.photos) :])
        to_do = [given for given in inputs if given.decoded and not _unchanged(given)]
        record = CommitRecord(
            set_key=photo_set.key,
            generation=photo_set.generation,
            identity=photo_set.identity,
            run_id=self.settings.run_id,
            attempt=attempt.id,
            outcome="done",
            rows=[],
        )
        computed = SetResult(photos=[])
        try:
            computed = self._protect(to_do, [*inputs, *references]) if to_do else computed
        except Exception as error:
            if environment_trouble(error):
                raise
            logger.warning("photo set failed twice: %s", type(error).__name__)
            logger.debug("photo set %s failed", photo_set.key, exc_info=error)
            record.outcome, record.reason = "failed", type(error).__name__
        self._watch.arm()
        rows = self._rows(photo_set, inputs, computed, record)
        record.seconds = time.monotonic() - started
        record.gpu_seconds = computed.cost.gpu_seconds
        record.cost = asdict(computed.cost)
        seconds, gpu_seconds = record.seconds / len(rows), record.gpu_seconds / len(rows)
        record.rows = [
            replace(each, row=replace(each.row, seconds=seconds, gpu_seconds=gpu_seconds))
            for each in rows
        ]
        return record

    def _decode(self, sources: Sequence[SourcePhoto], reads: Sequence[ReadPhoto]) -> list[_Input]:
        limits = PhotoLimits.of(self._operation)
        inputs = []
        for source, read in zip(sources, reads, strict=False):
            self._watch.arm()
            given = _Input(source, read, reason=read.reason)
            if read.content is not None and read.reason is None:
                try:
                    given.decoded = decode_photo(read.content, limits)
                except PhotoError as error:
                    given.reason = str(error)
            inputs.append(given)
        return inputs

    def _protect(self, to_do: Sequence[_Input], others: Sequence[_Input]) -> SetResult:
        """Runs the method; smaller micro-batches where memory runs out, a second try otherwise."""
        photos = [_photo(given) for given in to_do]
        references = [_photo(given) for given in others if given.decoded and given not in to_do]
        method, tries = self._method, 0
        while True:
            try:
                computed = self._compute(photos, references, method, lambda *_: self._watch.arm())
                for given, result in zip(to_do, computed.photos, strict=True):
                    given.result = result
                return computed
            except Exception as error:
                if is_out_of_memory(error) and method.micro_batch > 1:
                    method = method.model_copy(update={"micro_batch": method.micro_batch // 2})
                    logger.warning("memory ran out: micro-batch %d", method.micro_batch)
                    continue
                tries += 1
                if environment_trouble(error) or tries == 2:
                    raise

    def _rows(
        self,
        photo_set: PhotoSet,
        inputs: Sequence[_Input],
        computed: SetResult,
        record: CommitRecord,
    ) -> list[StagedRow]:
        """One row per photo; the protected ones are encoded and staged side by side."""

        def row_of(numbered: tuple[int, _Input]) -> StagedRow:
            index, given = numbered
            if _unchanged(given):
                return _unchanged_row(given.source)
            if given.result:
                return self._written_row(photo_set, given, given.result, computed, record, index)
            status: RowStatus = "failed" if given.decoded else "skipped"
            reason = record.reason if given.decoded else given.reason
            row = photo_row(given.source, status, photo_set, reason)
            return StagedRow(replace(row, source_sha256=given.read.sha256), given.source.output_key)

        with ThreadPoolExecutor(_ENCODERS) as pool:
            return list(pool.map(row_of, enumerate(inputs)))

    def _written_row(
        self,
        photo_set: PhotoSet,
        given: _Input,
        result: PhotoResult,
        computed: SetResult,
        record: CommitRecord,
        index: int,
    ) -> StagedRow:
        """Encodes and stages the protected photo, and describes it."""
        assert given.decoded is not None
        height, width = given.decoded.image.shape[:2]
        row = result_row(
            photo_set, given.source, given.read, (width, height), result, computed, self._method
        )
        if result.image is None:
            return StagedRow(row, given.source.output_key)
        content = encode_png(result.image, self._kept_copyright(given.decoded))
        key = self._ledger.staged_key(photo_set.key, record.attempt, f"{index:03d}.png")
        self._store.write(key, content)
        row = replace(row, output_sha256=sha256(content).hexdigest())
        return StagedRow(row, given.source.output_key, key)

    def _kept_copyright(self, decoded: DecodedPhoto) -> str | None:
        return decoded.copyright if self._method.keep_metadata == "copyright" else None


def _photo(given: _Input) -> Photo:
    assert given.decoded is not None
    return Photo(key=sha256(given.source.uri.encode()).hexdigest(), image=given.decoded.image)


def _unchanged(given: _Input) -> bool:
    previous = given.source.previous_sha256
    return previous is not None and previous == given.read.sha256


def _unchanged_row(source: SourcePhoto) -> StagedRow:
    """The earlier decision under the new version: the content is the same."""
    assert source.previous_row is not None
    earlier = ManifestRow.from_columns(json.loads(source.previous_row))
    return StagedRow(replace(earlier, source_version=source.version), source.output_key)


def _decided(record: CommitRecord, outcome: Literal["committed", "already"]) -> SetOutcome:
    return SetOutcome(
        set_key=record.set_key,
        generation=record.generation,
        outcome=outcome,
        statuses=dict(Counter(staged.row.status for staged in record.rows)),
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
