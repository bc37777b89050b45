"""One frozen ``RunConfig`` from a preset, a YAML file and ``--set`` values, checked once.

``method`` is all that changes pixels and gives the digest; ``operation`` is how the work is done;
``output`` is what files the pixels are put into.
Imports neither torch nor ray.
"""

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError

from dladiff import METHOD_VERSION
from dladiff.config import (
    MethodSettings,
    PresetName,
    Settings,
    parse_change,
    preset_settings,
    put,
)
from dladiff.former_settings import former_settings, what_became_of
from dladiff.settings_in_use import read_without_face_alone, refuse_unread
from pipeline.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


class CanarySettings(Settings):
    """How a method that is new to OUTPUT is judged before anything of it is published.

    The thresholds are far from what any preset reaches: they find what is broken, not what is
    weak. A figure that no photo has, such as likeness without layer 2, is not judged.
    """

    num_sets: Annotated[int, Field(ge=0)] = 50
    """The first photo sets with protected photos, which wait until they are judged together; a run
    of fewer is judged at its end. 0: everything is published at once."""
    max_likeness: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """Median over photos with a face of the highest cosine that a recogniser of the loop has left;
    a clean photo has nearly 1."""
    min_likeness_photos: Annotated[int, Field(ge=1)] = 10
    """It is not judged with fewer such photos: a few hard photos are no broken method."""
    min_psnr_db: float = 25.0
    """Median over photos."""
    min_changed_pixels: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """Median over photos of the share of pixels that changed at all; 0 would let a method pass
    that does nothing."""


def _shard(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError("expected NUMBER/COUNT from 1/COUNT to COUNT/COUNT, e.g. 3/16")
    return text


class OperationSettings(Settings):
    """How a run does its work; nothing here changes a byte of the protected photos."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Workers of the pool; None: as many as GPUs, or CPUs and memory, allow."""
    local_photos: Annotated[int, Field(ge=0)] = 64
    """A run of at most so many photos on this machine's CPUs starts its workers itself; more
    photos, GPUs or the address of a cluster take Ray. 0: always Ray."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """None: 1 where the cluster has GPUs and layer 1 is on, else 0."""
    worker_memory_gb: Annotated[float, Field(gt=0)] = 5.0
    """Memory that Ray reserves per worker for scheduling."""
    stage_while_computing: bool | None = None
    """A worker encodes and writes a set's photos while the next set computes; None: where workers
    have a GPU, since elsewhere both take the same CPUs, and at least four sets each: a set that
    waits for its worker is one that an idle worker could have begun."""
    read_concurrency: Annotated[int, Field(ge=1)] = 4
    """Parallel readers of photos."""
    max_set_photos: Annotated[int, Field(ge=1)] = 16
    max_set_bytes: Annotated[int, Field(ge=1)] = 256 * 1024**2
    """Encoded bytes of a set."""
    max_set_megapixels: Annotated[float, Field(gt=0)] = 64.0
    """Pixels of a set that are decoded at a time, references included: a larger set is protected
    in consecutive groups, each as a set of its own, so that its pixels fit into memory."""
    max_photo_bytes: Annotated[int, Field(ge=1)] = 64 * 1024**2
    """Larger files are skipped as ``too_many_bytes``."""
    max_photo_megapixels: Annotated[float, Field(gt=0)] = 64.0
    """Larger photos are skipped as ``too_many_pixels``."""
    min_photo_side_px: Annotated[int, Field(ge=1)] = 32
    max_crashed_attempts: Annotated[int, Field(ge=1)] = 3
    max_lost_attempts: Annotated[int, Field(ge=1)] = 10
    set_time_limit_s: Annotated[float, Field(gt=0)] = 3600.0
    """A stage of a set that makes no progress for so long ends its worker process."""
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of failed and quarantined photos above which the exit code is 2."""
    min_target_met: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a run's photos with a face that must reach ``target_cosine``; with fewer the
    exit code is 2. 0: it is said how many did, and no more."""
    lock_ttl_s: Annotated[float, Field(gt=0)] = 120.0
    fold_every_s: Annotated[float, Field(gt=0)] = 600.0
    """How often decided photos enter the manifest while the run goes on."""
    shard: Annotated[str, AfterValidator(_shard)] | None = None
    """``3/16``: only the people of the third of sixteen shards, by a hash of their names, so that a
    plan of many millions needs a sixteenth of the memory. Content is not recognised in another
    shard. Shards of one OUTPUT run one after the other; with an OUTPUT each, side by side."""
    increment: bool = False
    """INPUT is a catalog file of what is new or changed: what it does not name is left as it is,
    and of OUTPUT's memory only the people are read whom it names."""
    allow_prefixes: tuple[str, ...] = ()
    """Further URI prefixes that a catalog file may point to, besides INPUT."""
    include: tuple[str, ...] = ()
    """Patterns of the files in a folder INPUT that are looked at, as a shell has them (``*.jpg``,
    ``ann/2024/*``), whatever the case. One with a slash is compared with the path below INPUT, one
    without with each name on it. None: all files. Of a file without a photo's extension the first
    bytes are read, on a bucket by one request each: that is what patterns save."""
    exclude: tuple[str, ...] = ()
    """The same of files that are not looked at. Photos in OUTPUT that are left out stay there."""
    max_gone: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of INPUT's photos in OUTPUT that may be gone at once; where more are, a volume is most
    likely not mounted, and nothing is done. 1: all may go."""
    max_gone_photos: Annotated[int, Field(ge=0)] = 2
    """So few may be gone whatever their share is, as long as INPUT holds another photo."""
    delete_gone_outputs: bool = False
    """Delete the protected photo when its original is gone."""
    identity_keys: Literal["plain", "hmac"] = "plain"
    """Folder of a person below OUTPUT's ``images/``: the name, or its HMAC-SHA256 under the secret
    in the environment variable DLADIFF_IDENTITY_KEY, so that URLs name nobody. One OUTPUT keeps
    the choice and the secret that it was begun with. File names below it, and the manifest, are as
    ever."""
    canary: CanarySettings = CanarySettings()
    """The gate before the first publish of a method."""
    single_writer: bool = False
    """Accept a store without exclusive creation; then only one run may ever work on OUTPUT."""
    output_label: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,40}$")] | None = None
    """Label ``output`` of all metrics; None: eight digits of a hash of OUTPUT's URI, as ``dladiff
    status`` shows them. Name no person."""
    weights_cache: str | None = None
    """Folder for converted weights; None: the user's cache folder."""


FileFormat = Literal["JPEG", "PNG", "WEBP", "HEIF", "AVIF"]

FORMAT_OF_ENDING: dict[str, FileFormat] = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "jpe": "JPEG",
    "jfif": "JPEG",
    "mpo": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "heic": "HEIF",
    "heif": "HEIF",
    "hif": "HEIF",
    "avif": "AVIF",
}
"""Endings that a protected file may have."""

OutputFormat = Literal["png", "same", "webp", "jpeg"]


class OutputSettings(Settings):
    """What protected files are, and so how their names end."""

    format: OutputFormat = "same"
    """``same``: the format and the name of the original, a JPEG with its own quantisation tables,
    subsampling and progressive flag; GIF, BMP and TIFF become PNG. ``png`` alone is lossless for
    every original. One OUTPUT keeps the format that it was begun with, and one of an earlier
    version goes on with ``png``, until ``dladiff convert`` changes it."""


class RunConfig(Settings):
    """The whole configuration of a run."""

    method: MethodSettings = MethodSettings()
    operation: OperationSettings = OperationSettings()
    output: OutputSettings = OutputSettings()


def load_config(
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    operation: Mapping[str, object] | None = None,
    default_preset: PresetName = "balanced",
) -> RunConfig:
    """Builds the configuration: preset, then file, then ``key=value`` overrides.

    Args:
        preset: Name of a preset; None: the file's ``method.preset``, else ``default_preset``.
        file: YAML with the sections ``method``, ``operation`` and ``output``.
        overrides: ``loop.num_steps=20``; a key without its section is looked up in
            ``method``, then in ``operation``. Values are read as YAML.
        operation: Values of ``OperationSettings`` that stand above all others.

    Raises:
        ConfigurationError: With the value found and the remedy; a misspelt key is answered with
            the nearest right one, a setting that nothing reads with the one that is read.
    """
    values: dict[str, Any] = (
        read_yaml(file, "the sections method, operation and output") if file is not None else {}
    )
    if lines := list(former_settings(values.get("method"))):
        raise ConfigurationError(f"{file}: " + "\n".join(lines))
    name = preset or (values.get("method") or {}).get("preset") or default_preset
    if name not in get_args(PresetName):
        raise ConfigurationError(
            f"no preset {name!r}: choose one of {', '.join(get_args(PresetName))}"
        )
    base = {
        "method": preset_settings(cast(PresetName, name)).model_dump(mode="json"),
        "operation": {},
    }
    merged = _merge(_merge(base, values), {"method": {"preset": name}})
    # A file may repeat what the preset says anyway, as ``config show`` prints it.
    in_file = [
        line.partition(":")[0] for line in difference(base["method"], merged["method"] or {})
    ]
    given = {*in_file, *(key for one in overrides for key in _apply_override(merged, one))}
    merged = _merge(merged, {"operation": operation or {}})
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    _refuse_in_vain(config.method, {key.removeprefix("method.") for key in given})
    return config


def _refuse_in_vain(method: MethodSettings, given: Collection[str]) -> None:
    """Refuses settings without effect; names those that act on photos without a face alone."""
    try:
        refuse_unread(method, given)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    for path in sorted(read_without_face_alone(method)):
        if any(path == key or path.startswith(f"{key}.") for key in given):
            _LOG.warning(
                "%s acts on photos without a face alone: those with a face go through the "
                "loop (loop.num_steps and so on)",
                path,
            )


def method_digest(method: MethodSettings, weights_sha256: Mapping[str, str]) -> str:
    """Hex digest of all that changes bytes: settings, weight files, METHOD_VERSION."""
    content = {
        "method": method.model_dump(mode="json", exclude={"preset"}),
        "weights": dict(sorted(weights_sha256.items())),
        "method_version": METHOD_VERSION,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def models_digest(weights_sha256: Mapping[str, str]) -> str:
    """Hex digest of the weight files alone."""
    return hashlib.sha256(json.dumps(dict(sorted(weights_sha256.items()))).encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lines ``key: old -> new`` for every leaf in which two settings trees differ."""
    lines = []
    for key in sorted({*old, *new}):
        here = f"{path}.{key}" if path else key
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += difference(before, after, here)
        elif before != after:
            lines.append(f"{here}: {json.dumps(before)} -> {json.dumps(after)}")
    return lines


OnMethodChange = Literal["refuse", "keep", "reprotect"]


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """What ``--set`` of every command takes: ``key.below=value``, the value in YAML.

    Raises:
        ConfigurationError: If there is no key, or the value is no YAML.
    """
    try:
        return parse_change(text)
    except ValueError as error:
        raise ConfigurationError(f"--set {error}") from None


def nearest_hint(key: str, known: Iterable[str]) -> str:
    """`` (did you mean KEY?)`` where a known key is near, else nothing."""
    near = difflib.get_close_matches(key, list(known), 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def read_yaml(file: str | Path, expected: str) -> dict[str, Any]:
    """A file of settings as a tree of values; empty: none.

    Raises:
        ConfigurationError: If it cannot be read, or does not hold what is expected.
    """
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"no configuration file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: expected {expected}")
    return values


def _merge(base: dict[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> list[str]:
    """Puts one ``key=value`` into the tree; returns the whole keys of the values in it."""
    parts, value = parse_assignment(override)
    if (sentence := what_became_of(".".join(parts).removeprefix("method."))) is not None:
        raise ConfigurationError(sentence)
    if parts[0] not in RunConfig.model_fields:
        section = "method" if parts[0] in MethodSettings.model_fields else "operation"
        parts = [section, *parts]
    _require_known(parts)
    try:
        put(values, parts, value)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return [*_keys_below(".".join(parts), value)]


def _keys_below(key: str, value: Any) -> Iterator[str]:
    """The key itself, or those of a mapping's values."""
    if not isinstance(value, Mapping):
        yield key
        return
    for name, below in value.items():
        yield from _keys_below(f"{key}.{name}", below)


def _require_known(parts: list[str]) -> None:
    """Refuses a path of keys that leaves the settings tree, naming the nearest right key."""
    model: type[Settings] | None = RunConfig
    for depth, part in enumerate(parts):
        if model is None:
            raise ConfigurationError(f"{'.'.join(parts[:depth])} has no keys below it")
        if part not in model.model_fields:
            raise ConfigurationError(_unknown_key(".".join(parts[: depth + 1]), part))
        model = _section(model.model_fields[part].annotation)


def _section(annotation: Any) -> type[Settings] | None:
    """The settings below a field, also of one that may be None; None: there are none."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Settings):
            return kind
    return None


def _unknown_key(where: str, key: str) -> str:
    paths = _all_paths(RunConfig)
    leaf = difflib.get_close_matches(key, [path.rsplit(".", 1)[-1] for path in paths], 1, 0.6)
    if not leaf:
        return f"unknown key {where}: `dladiff config schema` lists all"
    candidates = [path for path in paths if path.rsplit(".", 1)[-1] == leaf[0]]
    nearest = difflib.get_close_matches(where, candidates, 1, 0.0) or candidates
    return f"unknown key {where}: did you mean {nearest[0]}?"


def _all_paths(model: type[Settings], prefix: str = "") -> list[str]:
    paths = []
    for name, field in model.model_fields.items():
        paths.append(prefix + name)
        if (below := _section(field.annotation)) is not None:
            paths += _all_paths(below, f"{prefix}{name}.")
    return paths


def _explain(error: ValidationError) -> str:
    lines = []
    for trouble in error.errors():
        where = ".".join(map(str, trouble["loc"]))
        if trouble["type"] == "extra_forbidden":
            lines.append(_unknown_key(where, str(trouble["loc"][-1])))
        else:
            lines.append(f"{where}: {trouble['msg']}, got {trouble['input']!r}")
    return "\n".join(lines)
