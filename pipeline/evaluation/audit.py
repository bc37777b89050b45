"""A quick attack on a few photo sets of a finished run: does what it published protect?

DreamBooth on clean and on protected photos of sampled people, judged as ``dladiff evaluate`` does
and by its code. Only numbers are kept: generated images and weights never leave a worker's memory.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dladiff.config import EncoderSettings
from dladiff.former_settings import record_as_now
from dladiff.weight_files import user_cache
from pipeline.errors import ConfigurationError, EnvironmentTrouble, PhotoError
from pipeline.evaluation.cells import Cell
from pipeline.evaluation.families import standings
from pipeline.evaluation.people import (
    CLEAN,
    MIN_REFERENCE,
    PROTECTED,
    Person,
    PhotoFile,
    photo_file,
)
from pipeline.evaluation.plan import EvaluationPlan, make_plan
from pipeline.evaluation.protection import checkpoint_has_template, encoders_of_method
from pipeline.evaluation.records import MemoryShelf, write_record
from pipeline.evaluation.rows import AttackRow, Tables, make_tables
from pipeline.evaluation.settings import (
    EvaluationSettings,
    default_judges,
    evaluation_settings,
)
from pipeline.evaluation.summary import Line, ResultLines
from pipeline.evaluation.worker import do_in_memory
from pipeline.evaluation.workers import OpenWorkers
from pipeline.evaluation.workplace import Workplace
from pipeline.interruption import interruptible
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.audits import Audit, AuditJudge, read_audit, write_audit
from pipeline.output.manifest import newest_rows
from pipeline.output.runs import read_finished, read_run, run_key
from pipeline.reporting.audit_words import audit_prom_text
from pipeline.reporting.labelled import chosen_label, output_label
from pipeline.storage.store import Store

NUM_IMAGES = 4
"""Images per stop, half of ``quick``: training costs most, so fewer would save little."""
MAX_REFERENCE = 8
"""Clean photos of a person that stand for them."""

Say = Callable[[str], object]
_Found = Mapping[str, dict[str, Any] | str]


def audit_run(
    store: Store,
    run_id: str,
    num_sets: int,
    open_workers: OpenWorkers,
    say: Say,
    overrides: Sequence[str] = (),
) -> Audit:
    """Attacks sampled sets of a run, and puts what shows into its record and metrics.

    An audit of as many sets that is there already is not done again.

    Args:
        store: OUTPUT; its originals must still be readable.
        run_id: A run whose photos are in the manifest.
        num_sets: So many sets with at least two photos, of different people.
        open_workers: Opens workers for so many tasks; see ``workers.ray_workers``.
        say: Takes lines on progress, for a person.
        overrides: As of ``dladiff evaluate --set``; numbers are then comparable only among
            themselves.

    Raises:
        ConfigurationError: If there is no such run, or it has not finished.
    """
    record = read_run(store, run_id)
    if record is None or read_finished(store, run_id) is None:
        raise ConfigurationError(
            f"run {run_id} has not finished in {store.uri}: `dladiff protect` finishes it"
        )
    audit = read_audit(store, run_id)
    if audit is None or audit.num_sets_asked < num_sets:
        audit = _attack_run(store, record, run_id, num_sets, open_workers, say, overrides)
        write_audit(store, audit)
    _add_metrics(store, audit)
    return audit


def _attack_run(
    store: Store,
    record: Mapping[str, Any],
    run_id: str,
    num_sets: int,
    open_workers: OpenWorkers,
    say: Say,
    overrides: Sequence[str],
) -> Audit:
    started = time.monotonic()
    method = (record.get("config") or {}).get("method") or {}
    settings = audit_settings(method, overrides)
    people = sampled_people(store, run_id, num_sets, settings.num_trained)
    judges: list[AuditJudge] = []
    attacks: list[AttackRow] = []
    if people:
        plan = make_plan(people, settings, checkpoint_has_template(settings))
        attacks = _attack(plan, settings, method, open_workers, say).attacks
        for row in attacks:
            if row.status != "done":
                say(f"audit: an attack was not done, {(row.reason or '').partition(':')[0]}")
        judges = [
            _judge(line) for line in ResultLines(attacks).lines() if line.condition == PROTECTED
        ]
    done = [row for row in attacks if row.status == "done"]
    of_run = [row for row in done if row.condition == PROTECTED]
    return Audit(
        run_id=run_id,
        num_sets_asked=num_sets,
        num_people=len({row.identity for row in of_run}),
        num_photos=sum(row.num_photos or 0 for row in of_run),
        attack=settings.attacks[0],
        checkpoint=settings.checkpoint,
        num_images=settings.num_images,
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(sum(row.cpu_seconds or 0.0 for row in done), 1),
        judges=tuple(judges),
    )


def audit_settings(method: Mapping[str, Any], overrides: Sequence[str] = ()) -> EvaluationSettings:
    """One attack without handling, on the checkpoint that the run guarded against.

    Judges are the package's, and the encoders of the run's method that a person brought.

    Args:
        method: Of the run's record.
        overrides: Of the attack.
    """
    method = record_as_now(method)
    model = method.get("model") or {} if method.get("against") != "zero-shot" else {}
    judges = list(default_judges())
    for item in method["recognisers"]:
        if item["name"] not in [judge.name for judge in judges] and item.get("path"):
            judges.append(EncoderSettings.model_validate({**item, "role": "judge"}))
    given = {
        "attacks": ("dreambooth",),
        "handlings": ("none",),
        "num_images": NUM_IMAGES,
        "checkpoint": model.get("checkpoint"),
        "revision": model.get("revision"),
        "judges": tuple(judges),
    }
    return evaluation_settings("quick", given, overrides)


def sampled_people(store: Store, run_id: str, num_sets: int, num_trained: int) -> list[Person]:
    """People of a run's sets, one set each: the same ones whenever it is asked. Named by number.

    Sets whose originals cannot be read any more are passed over.

    Args:
        store: OUTPUT.
        run_id: Salts the draw, so that other runs look at other people.
        num_sets: At most so many people.
        num_trained: Attacked photos of a person, first by name.
    """
    columns = ("source_sha256", "output_uri", "set_key", "run_id")
    rows = sorted(newest_rows(store, columns), key=lambda row: row.source_uri)
    sets: dict[str, list[ManifestRow]] = {}
    for row in rows:
        is_there = row.status in PROTECTED_STATUSES and row.output_uri is not None
        if row.run_id == run_id and row.set_key is not None and is_there:
            sets.setdefault(row.set_key, []).append(row)
    order = sorted(sets, key=lambda key: hashlib.sha256(f"{run_id}/{key}".encode()).hexdigest())
    people: dict[str, Person] = {}
    for key in order:
        identity = sets[key][0].identity
        if len(sets[key]) >= 2 and identity not in people and len(people) < num_sets:
            person = _person(str(len(people) + 1), sets[key][:num_trained], rows)
            if person is not None:
                people[identity] = person
    return list(people.values())


def _person(
    name: str, attacked: Sequence[ManifestRow], rows: Sequence[ManifestRow]
) -> Person | None:
    """The reference are other photos of the person, as in an evaluation."""
    clean = _readable(row.source_uri for row in attacked)
    protected = _readable(row.output_uri or "" for row in attacked)
    if not len(clean) == len(protected) == len(attacked):
        return None
    own_uris = {row.source_uri for row in attacked}
    others = [
        row.source_uri
        for row in rows
        if row.identity == attacked[0].identity
        and row.source_uri not in own_uris
        and row.status in PROTECTED_STATUSES
    ]
    reference = _readable(others[:MAX_REFERENCE])
    own = len(reference) < MIN_REFERENCE
    conditions = {CLEAN: clean, PROTECTED: protected}
    return Person(name, conditions, clean if own else reference, own)


def _readable(uris: Iterable[str]) -> tuple[PhotoFile, ...]:
    found = []
    for uri in uris:
        try:
            found.append(photo_file(uri))
        except (FileNotFoundError, PhotoError, EnvironmentTrouble, ConfigurationError):
            continue  # moved or forgotten since; `verify` is the command that complains
    return tuple(found)


def _attack(
    plan: EvaluationPlan,
    settings: EvaluationSettings,
    method: Mapping[str, Any],
    open_workers: OpenWorkers,
    say: Say,
) -> Tables:
    """Does all cells in workers, gathers their numbers here, and scores them."""
    tasks = _tasks(plan)
    shelf, reasons = MemoryShelf(), dict[str, str]()
    with open_workers(len(tasks)) as workers, interruptible():
        place = Workplace(
            out_uri="",
            settings_json=settings.model_dump_json(),
            device=workers.device,
            threads=workers.threads,
            weights_cache=str(user_cache()),
        )
        done: Iterator[tuple[tuple[Cell, ...], _Found]]
        done = workers.do_all(partial(do_in_memory, place), tasks)
        for number, (cells, found) in enumerate(done, 1):
            for cell in cells:
                outcome = found[cell.key]
                if isinstance(outcome, str):
                    reasons[cell.key] = outcome
                else:
                    write_record(shelf, cell, outcome)
            say(f"audit: {number} of {len(tasks)} attacks")
    standing = standings(settings.judges, encoders_of_method(method))
    return make_tables(shelf, plan, standing, reasons)


def _tasks(plan: EvaluationPlan) -> list[tuple[Cell, ...]]:
    """An attack and the looks at its images are one task, since the images stay where they are."""
    tasks: dict[str, dict[str, Cell]] = {}
    for row in plan.rows:
        for look in (row.measure, row.floor):
            cells = tasks.setdefault(look.attack.key, {look.attack.key: look.attack})
            cells[look.key] = look
    return [tuple(cells.values()) for cells in tasks.values()]


def _judge(line: Line) -> AuditJudge:
    return AuditJudge(
        judge=line.judge,
        family=line.family,
        in_loss=line.in_loss,
        kin_of_loss=line.kin_of_loss,
        headline=line.headline,
        leak_clean=line.leak_clean,
        leak_protected=line.leak,
        floor=line.floor,
        effect=_number(line.effect.value),
        effect_low=_number(line.effect.low),
        effect_high=_number(line.effect.high),
        effect_smoothed=_number(line.effect_smoothed.value),
    )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _add_metrics(store: Store, audit: Audit) -> None:
    """Appends an audit to ``metrics.prom``, in place of an earlier one."""
    key = run_key(audit.run_id, "metrics.prom")
    try:
        text = store.read(key).decode()
    except FileNotFoundError:
        text = ""
    kept = [line for line in text.splitlines(keepends=True) if "dladiff_audit_" not in line]
    label = output_label(store.uri, chosen_label(read_run(store, audit.run_id) or {}))
    store.write(key, ("".join(kept) + audit_prom_text(audit, label)).encode())
