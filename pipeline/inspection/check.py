"""``dladiff check``: can a run work here? One answer per question, each with a remedy.

Writes nothing but the store's own probes below OUTPUT/locks, which it deletes again.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dladiff.errors import DladiffError
from pipeline.catalog.folder import check_paths, read_catalog
from pipeline.config import RunConfig, load_config, method_digest
from pipeline.errors import ConfigurationError, EnvironmentTrouble, PipelineError
from pipeline.models.registry import list_models, weights_sha256
from pipeline.output.lock import read_lock
from pipeline.reasons import passed_over_text
from pipeline.reporting.words import format_bytes, format_count, format_duration
from pipeline.storage.access import no_such_bucket
from pipeline.storage.store import Store, open_store
from pipeline.storage.uris import split_uri

_MAX_CLOCK_DIFFERENCE_S = 60.0
_MIN_FREE_BYTES = 2 * 10**9

_REMEDIES = {
    "store_denied": "check the credentials in the environment, or the pod's role",
    "store_throttled": "the store asks to slow down: try again later, with fewer workers",
    "store_unreachable": "check the endpoint, the bucket's name and the network",
    "disk_full": "free some space",
}


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    """What to do; None where nothing needs to be done."""


def check_all(
    make_config: Callable[[], RunConfig],
    input_uri: str | None = None,
    output_uri: str | None = None,
    load_models: bool = False,
) -> list[Check]:
    """Answers every question, also where an earlier answer was bad.

    Args:
        make_config: Builds the configuration; its refusal is an answer too.
        input_uri: INPUT; None: not checked.
        output_uri: OUTPUT; None: not checked.
        load_models: Also load the models, which takes seconds.
    """
    checks = [_check_packages()]
    try:
        config = make_config()
    except ConfigurationError as error:
        checks.append(Check("configuration", False, str(error)))
        config = load_config()
    else:
        checks += _guarded("configuration", lambda: _check_method(config))
    checks += _check_models(config, load_models)
    if input_uri is not None and output_uri is not None:
        checks += _guarded("paths", lambda: _check_paths(input_uri, output_uri))
    if input_uri is not None:
        checks += _guarded("INPUT", lambda: _check_input(input_uri, config))
    if output_uri is not None:
        checks += _guarded("OUTPUT", lambda: _check_output(output_uri, config))
    return checks


def check_lines(checks: list[Check]) -> list[str]:
    """The same for a person, one line per question, the remedy below a bad answer."""
    lines = []
    for check in checks:
        lines.append(f"{'ok' if check.ok else 'FAIL':<6}{check.name:<18}{check.detail}")
        if check.remedy:
            lines.append(f"      {'':<18}-> {check.remedy}")
    return lines


def _guarded(name: str, answer: Callable[[], Iterator[Check]]) -> list[Check]:
    """The answers, or the trouble that kept them from being given."""
    checks = []
    try:
        for check in answer():
            checks.append(check)
    except EnvironmentTrouble as error:
        remedy = _REMEDIES.get(error.cause)
        checks.append(Check(name, False, f"{error.cause}: {error}", remedy))
    except PipelineError as error:
        checks.append(Check(name, False, str(error)))
    return checks


def _check_packages() -> Check:
    try:
        found = ", ".join(f"{name} {version(name)}" for name in ("dladiff", "torch", "ray"))
    except PackageNotFoundError as error:
        return Check("packages", False, f"{error.name} is not installed", "pip install dladiff")
    return Check("packages", True, found)


def _check_method(config: RunConfig) -> Iterator[Check]:
    digest = method_digest(config.method, weights_sha256(config.method))
    yield Check("configuration", True, f"preset {config.method.preset}, method {digest[:12]}")


def _check_models(config: RunConfig, load: bool) -> Iterator[Check]:
    for model in list_models(config.method):
        detail = f"{model.purpose}, {model.state}"
        yield Check(f"model {model.name}", model.state == "ok", detail, model.remedy)
    if not load:
        return
    from dladiff.models import load_models  # seconds: torch

    began = time.monotonic()
    try:
        load_models(config.method, "cpu")
    except DladiffError as error:
        yield Check("models load", False, str(error))
        return
    yield Check("models load", True, f"in {format_duration(time.monotonic() - began)} on the CPU")


def _check_paths(input_uri: str, output_uri: str) -> Iterator[Check]:
    check_paths(input_uri, output_uri)
    yield Check("paths", True, "INPUT and OUTPUT lie apart")


def _check_input(input_uri: str, config: RunConfig) -> Iterator[Check]:
    report = read_catalog(input_uri, config.operation).report
    detail = (
        f"{format_count(report.num_photos, 'photo')} of "
        f"{format_count(report.num_identities, 'identity', 'identities')}, "
        f"{format_bytes(report.num_bytes)}; passed over: "
        f"{passed_over_text(report.ignored, report.ignored_extensions) or 'nothing'}"
    )
    if report.denied:
        yield Check("INPUT", False, detail, f"let this user read {', '.join(report.denied)}")
        return
    if report.num_photos:
        yield Check("INPUT", True, detail)
    else:
        yield Check("INPUT", False, detail, "expected <identity>/<photo> below INPUT")


def _check_output(output_uri: str, config: RunConfig) -> Iterator[Check]:
    store = open_store(output_uri)
    scheme, _, path = split_uri(store.uri)
    if scheme == "file":
        yield _check_disk(Path(path))
        if not store.root_exists():
            yield _check_new_folder(Path(path))
            return
    elif not store.root_exists():
        raise no_such_bucket(store, "OUTPUT")
    yield _check_exclusive_creation(store, config.operation.single_writer)
    yield _check_clock(store)
    lock = read_lock(store)
    if lock is None:
        yield Check("OUTPUT lock", True, "free")
    else:
        silent = format_duration(lock.silent_s)
        is_dead = lock.silent_s > config.operation.lock_ttl_s
        detail = f"run {lock.run_id} on host {lock.host}, last sign of life {silent} ago"
        remedy = None if is_dead else "wait for that run, or use --wait"
        yield Check("OUTPUT lock", is_dead, detail, remedy)


def _check_disk(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    return Check(
        "OUTPUT disk",
        free >= _MIN_FREE_BYTES,
        f"{format_bytes(free)} free",
        None if free >= _MIN_FREE_BYTES else "free some space for protected photos",
    )


def _check_new_folder(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check("OUTPUT", True, "does not exist yet; the first run creates it")
    why = "may not be written by this user" if existing.is_dir() else "is no folder"
    remedy = "give a folder that this user may make and write"
    return Check("OUTPUT", False, f"{existing} {why}", remedy)


def _check_exclusive_creation(store: Store, single_writer: bool) -> Check:
    name = "OUTPUT store"
    if store.probe_exclusive_creation():
        return Check(name, True, "can be written and tells the first writer from all others")
    detail = "can be written but does not honour exclusive creation (If-None-Match)"
    remedy = "use another store, or --set single_writer=true if only one run ever works on it"
    return Check(name, single_writer, detail, None if single_writer else remedy)


def _check_clock(store: Store) -> Check:
    difference_s = store.store_time() - time.time()
    ok = abs(difference_s) <= _MAX_CLOCK_DIFFERENCE_S
    return Check(
        "OUTPUT clock",
        ok,
        f"{difference_s:+.0f} s against this machine",
        None if ok else "set this machine's clock: ages and times in reports would be wrong",
    )
