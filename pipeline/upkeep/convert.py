"""``dladiff convert``: an OUTPUT of PNG files becomes one of files as their originals are.

A PNG holds the very pixels that were computed, so nothing is protected anew: they are coded as the
original is, and the figures of the manifest are measured on the file read back. Killed anywhere and
done again, it does the rest.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from dladiff.config import MethodSettings
from pipeline.catalog.output_keys import assign_output_keys, ending_of, key_in_format
from pipeline.config import OutputFormat
from pipeline.errors import ConfigurationError, EnvironmentTrouble, PhotoError
from pipeline.images.coding import can_write, decode_coded, prepare
from pipeline.images.files import NO_LIMITS, DecodedPhoto, decode_photo
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.fold import write_part
from pipeline.output.lock import LockLostError, OutputLock
from pipeline.output.manifest import newest_rows, newest_state, read_manifest, require_output
from pipeline.output.recovery import recover
from pipeline.output.runs import finish_run, make_run_id, method_of_run, start_run
from pipeline.planning.output_format import format_of, record_format
from pipeline.records import SourcePhoto
from pipeline.reporting.words import format_bytes, format_count
from pipeline.storage.store import Store, read_uri
from pipeline.upkeep.remeasure import Measure, load_measure

_PHOTOS_PER_PART = 100
"""Photos whose old file is deleted together, after their rows are written."""
CONVERTED_NOTE = "converted_from_png"


@dataclass
class ConversionReport:
    """What became of the PNG files; carries no names."""

    to: OutputFormat
    num_converted: int = 0
    num_bytes_before: int = 0
    num_bytes_after: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    """Photos that stay as they are, by why."""


@dataclass(frozen=True)
class _Task:
    row: ManifestRow
    old_key: str
    new_key: str


def convert_output(
    store: Store,
    to: OutputFormat,
    measured_by: MethodSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    load: Callable[[MethodSettings], Measure] = load_measure,
) -> ConversionReport:
    """Codes the photos of an OUTPUT of PNG files anew, and says so in its manifest.

    Args:
        store: OUTPUT; its originals must still be where they were, or their files stay PNG.
        to: The ``output.format`` that OUTPUT has from now on.
        measured_by: Names the models that measure; None: the settings of the run that made a photo.
        on_progress: Told how many of how many photos are done.
        load: Loads what measures.

    Raises:
        ConfigurationError: If this OUTPUT cannot be converted, or its settings are not known.
        LockHeldError: If a run works on OUTPUT.
        ModelError: If weights that measure are missing.
    """
    require_output(store)
    found = format_of(store)
    if to == "png" or found not in ("png", to):
        raise ConfigurationError(
            f"{store.uri} holds files of output.format {found or 'none'}; converted can be PNG "
            "files alone, which hold the very pixels that were computed, and into other formats: "
            "choose a new OUTPUT"
        )
    report, run_id = ConversionReport(to), f"convert-{make_run_id({})}"
    with OutputLock(store, run_id) as lock:
        if recover(store, run_id, lock):
            raise ConfigurationError(
                "photos wait for the canary of their method: let `dladiff protect` finish first"
            )
        start_run(store, run_id, _run_record(store, to))
        record_format(store, to)
        _delete_replaced(store)
        tasks, measures = _tasks(store, to), _Measures(store, measured_by, load)
        for start in range(0, len(tasks), _PHOTOS_PER_PART):
            batch, rows = tasks[start : start + _PHOTOS_PER_PART], list[ManifestRow]()
            for number, task in enumerate(batch, start=start):
                on_progress(number, len(tasks))
                rows += _converted(store, task, measures, report)
            if not lock.regain():
                raise LockLostError("OUTPUT's lock is lost or was not renewed: run this again")
            write_part(store, run_id, rows)
            done = {row.source_uri for row in rows}
            store.delete([task.old_key for task in batch if task.row.source_uri in done])
        on_progress(len(tasks), len(tasks))
        finish_run(store, run_id, dataclasses.asdict(report))
    return report


def conversion_lines(report: ConversionReport) -> list[str]:
    """The same for a person."""
    lines = [
        f"converted   {format_count(report.num_converted, 'photo')}: "
        f"{format_bytes(report.num_bytes_before)} -> {format_bytes(report.num_bytes_after)}"
    ]
    lines += [
        f"kept        {format_count(number, 'PNG file')}: {why}"
        for why, number in sorted(report.kept.items())
    ]
    return [*lines, f"from now on output.format is {report.to}"]


def _run_record(store: Store, to: OutputFormat) -> dict[str, Any]:
    """What a later run compares its settings with: the protection is still that of the last run."""
    states = newest_state(store).values()
    run_ids = {state.run_id for state in states if state.status in PROTECTED_STATUSES}
    method = method_of_run(store, max(run_ids)) if run_ids else None
    return {"config": {"method": method, "output": {"format": to}}, "version": version("dladiff")}


def _tasks(store: Store, to: OutputFormat) -> list[_Task]:
    """The photos whose file would have another name in the new format."""
    served = [
        (row, store.key_of(row.output_uri))
        for row in newest_rows(store)
        if row.status in PROTECTED_STATUSES and row.output_uri is not None
    ]
    wanted = []
    for row, key in served:
        own_ending = ending_of(key.removesuffix(".png"))
        if not key.endswith(".png") or own_ending != ending_of(row.source_uri):
            continue  # a key that a catalog gave, or one that is converted already
        new = key_in_format(key, to, can_write)
        if new != key:
            wanted.append(SourcePhoto(row.identity, row.source_uri, new, 0, ""))
    # A name stays taken as long as any photo has it: another one may want it.
    held = {f"before:{row.source_uri}": key for row, key in served}
    new_keys = {photo.uri: photo.output_key for photo in assign_output_keys(wanted, held)}
    return [
        _Task(row, key, new_keys[row.source_uri])
        for row, key in served
        if row.source_uri in new_keys
    ]


def _converted(
    store: Store, task: _Task, measures: "_Measures", report: ConversionReport
) -> list[ManifestRow]:
    """Writes a photo's new file; gives its row, or none where the old file stays."""
    row = task.row
    read = _read(store, task)
    if isinstance(read, str):
        report.kept[read] = report.kept.get(read, 0) + 1
        return []
    original, content, clean, protected = read
    endings = ending_of(row.source_uri), ending_of(task.new_key)
    prepared = prepare(original, clean, *endings, content_decides=report.to == "same")
    clean, coding = prepared.decoded, prepared.coding
    num_bytes_before = len(content)
    if coding.file_format != "PNG":
        content = coding.encode(protected.image, protected.copyright)
    if coding.file_format != "PNG" and coding.changes_pixels:
        row = measures.of(row)(row, clean.image, decode_coded(content), coding)
    store.write(task.new_key, content)
    report.num_converted += 1
    report.num_bytes_before += num_bytes_before
    report.num_bytes_after += len(content)
    return [
        dataclasses.replace(
            row,
            output_uri=store.uri_of(task.new_key),
            output_sha256=sha256(content).hexdigest(),
            output_bytes=len(content),
            output_format=coding.file_format.lower(),
            source_notes=[*(row.source_notes or ()), *prepared.notes, CONVERTED_NOTE],
            committed_at=None,
        )
    ]


def _read(store: Store, task: _Task) -> tuple[bytes, bytes, DecodedPhoto, DecodedPhoto] | str:
    """Original and protected file, and their pixels; or why the file has to stay as it is."""
    try:
        original, content = read_uri(task.row.source_uri), store.read(task.old_key)
    except FileNotFoundError:
        return "the original or the file is gone"
    except EnvironmentTrouble as error:
        return f"the original cannot be read ({error.cause})"
    if sha256(original).hexdigest() != task.row.source_sha256:
        return "the original has changed since"
    if sha256(content).hexdigest() != task.row.output_sha256:
        return "the file is not the one that was published, see `dladiff verify`"
    try:
        return (
            original,
            content,
            decode_photo(original, NO_LIMITS, task.row.source_notes or ()),
            decode_photo(content, NO_LIMITS),
        )
    except PhotoError as error:
        return f"it cannot be decoded ({error.reason.code})"


def _delete_replaced(store: Store) -> None:
    """Deletes files that an interrupted conversion has replaced and not deleted."""
    converted = {
        row.source_uri: row.output_uri
        for row in newest_rows(store, ["output_uri", "source_notes"])
        if CONVERTED_NOTE in (row.source_notes or ())
    }
    serving = {row.output_uri for row in newest_rows(store, ["output_uri"])}
    before = {
        row["output_uri"]
        for row in read_manifest(store, ["source_uri", "output_uri"]).to_pylist()
        if row["source_uri"] in converted
    }
    store.delete(store.key_of(uri) for uri in sorted(before - serving - {None}))


class _Measures:
    """What measures, loaded once per settings of runs."""

    def __init__(
        self,
        store: Store,
        measured_by: MethodSettings | None,
        load: Callable[[MethodSettings], Measure],
    ) -> None:
        self._store, self._measured_by, self._load = store, measured_by, load
        self._by_settings: dict[str, Measure] = {}
        self._settings: dict[str | None, MethodSettings] = {}

    def of(self, row: ManifestRow) -> Measure:
        """What measures the photos of the row's run."""
        if row.run_id not in self._settings:
            self._settings[row.run_id] = self._measured_by or self._settings_of(row.run_id)
        method = self._settings[row.run_id]
        key = method.model_dump_json()
        if key not in self._by_settings:
            self._by_settings[key] = self._load(method)
        return self._by_settings[key]

    def _settings_of(self, run_id: str | None) -> MethodSettings:
        settings = method_of_run(self._store, run_id) if run_id is not None else None
        with suppress(ValidationError):
            if settings is not None:
                return MethodSettings.model_validate(settings)
        raise ConfigurationError(
            f"the settings of run {run_id} cannot be read by this version: name the models that "
            "measure by --preset"
        )
