"""``dladiff plan``: what a run would do and what it would cost; writes nothing."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from pipeline.catalog.folder import check_paths, read_catalog
from pipeline.catalog.people import shard_takes
from pipeline.catalog.photos import CatalogReport
from pipeline.config import RunConfig, method_digest
from pipeline.inspection.counted import GpuForecast, gpu_forecast
from pipeline.models.registry import weights_sha256
from pipeline.options import RunOptions
from pipeline.output.gate import waiting_records
from pipeline.output.manifest import decided_sources, read_manifest
from pipeline.output.runs import unfinished_runs
from pipeline.planning.against_output import plan_beside_waiting
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.estimate import (
    MEASURED_COLUMNS,
    Estimate,
    estimate,
    measured_seconds_per_photo,
)
from pipeline.planning.output_format import in_format_of, kept_format_note
from pipeline.planning.plan import Plan
from pipeline.planning.prices import Prices, count_requests
from pipeline.planning.weaker import weaker_than_preset
from pipeline.reasons import passed_over_text
from pipeline.reporting.words import format_bytes, format_count, format_duration
from pipeline.storage.store import Store, open_store

_SAMPLED_IMAGES = 1000
"""Protected photos whose size is looked at: a page of a bucket's listing."""


@dataclass
class Preview:
    """What a run would do, in numbers; only ``notes`` may name folders."""

    num_photos: int
    num_sets: int
    num_identities: int
    num_bytes: int
    photos: dict[str, int]
    """Photos found, by what the plan decided for them."""
    ignored: dict[str, int]
    """Files of INPUT that are no photos, by reason."""
    ignored_extensions: dict[str, int]
    """Files of another type, by extension."""
    num_looked_at: int
    """Files whose first bytes were read, since their name promises no photo."""
    method_digest: str
    workers: int
    """The configured number, else as many as this machine's CPUs allow."""
    seconds_per_photo: float | None
    """Seconds that one worker takes; None: nothing is known yet."""
    worker_hours: float | None
    wall_hours: float | None
    basis: str
    """Where the seconds per photo come from."""
    num_bytes_written: int | None = None
    """Bytes of protected photos; None: nothing is known yet."""
    num_requests: int = 0
    """To INPUT and OUTPUT together."""
    currency: str = ""
    money: dict[str, float] | None = None
    """Money by what it is for; None: no prices were given, or the work is not known."""
    on_gpus: GpuForecast | None = None
    """Where nothing was measured and published autoencoders are named."""
    notes: list[str] = field(default_factory=list)


def preview_run(
    input_uri: str,
    output_uri: str,
    config: RunConfig,
    options: RunOptions,
    seconds_per_photo: float | None = None,
    prices: Prices | None = None,
    num_calibration_photos: int = 0,
) -> Preview:
    """Plans as a run would, with the same refusals.

    Args:
        seconds_per_photo: Of one worker; None: as measured in OUTPUT, else the preset's default.
        prices: For ``Preview.money``.
        num_calibration_photos: Protect so many photos on this machine, for the clock alone.

    Raises:
        ConfigurationError: As for a run, or none of the calibration's photos can be worked on.
    """
    input_uri, output_uri = check_paths(input_uri, output_uri)
    store = open_store(output_uri)
    digest = method_digest(config.method, weights_sha256(config.method))
    is_new = not store.root_exists()
    kept = in_format_of(store, config).output.format
    format_note = kept_format_note(config.output.format, kept)
    rules = DecisionRules.asked_for(options, digest)
    known = partial(decided_sources, store, shard_takes(config.operation.shard))
    catalog = read_catalog(input_uri, config.operation, output_uri, known)
    unfinished = [] if is_new else unfinished_runs(store)
    held = [record for run_id in unfinished for record in waiting_records(store, run_id)]
    plan, waiting = plan_beside_waiting(
        catalog, store, config, rules, None, options.reprotect, held
    )
    if seconds_per_photo is not None:
        expected = estimate(plan, config, seconds_per_photo, "as given")
    elif num_calibration_photos and len(plan.photo_sets):
        expected = _calibrated(plan, config, catalog.roots, num_calibration_photos)
    elif is_new:
        expected = estimate(plan, config)
    else:
        manifest = read_manifest(store, MEASURED_COLUMNS)
        expected = estimate(plan, config, measured_seconds_per_photo(manifest, digest))
    summary, on_gpus = plan.summary(), None
    if expected.seconds_per_photo is None and summary.num_photos:
        on_gpus = gpu_forecast(config.method, summary.num_photos)
    threads = config.method.threads
    workers = config.operation.workers or max(1, (os.cpu_count() or 1) // threads)
    written = None if is_new else _mean_image_bytes(store)
    written = None if written is None else round(written * summary.num_photos)
    if written is None and kept == "same":
        written = plan.totals.photo_bytes
    requests = count_requests(plan)
    money = None
    if prices is not None and expected.worker_hours is not None:
        moved = summary.num_bytes + (written or 0)
        money = prices.sums(expected.worker_hours, requests, moved)
    return Preview(
        num_photos=summary.num_photos,
        num_sets=summary.num_sets,
        num_identities=summary.num_identities,
        num_bytes=summary.num_bytes,
        photos={name: n for name, n in dataclasses.asdict(plan.counts).items() if n},
        ignored=dict(plan.catalog_report.ignored),
        method_digest=digest,
        workers=workers,
        seconds_per_photo=expected.seconds_per_photo,
        worker_hours=expected.worker_hours,
        wall_hours=expected.wall_hours(workers),
        basis=expected.basis,
        num_bytes_written=written,
        num_requests=requests.total,
        currency=prices.currency if prices is not None else "",
        money=money,
        on_gpus=on_gpus,
        num_looked_at=plan.catalog_report.num_looked_at,
        ignored_extensions=dict(plan.catalog_report.ignored_extensions),
        notes=[*filter(None, [weaker_than_preset(config.method)])]
        + _catalog_notes(plan.catalog_report)
        + ([] if format_note is None else [format_note])
        + _output_notes(len(unfinished), sum(record.num_photos for record in waiting)),
    )


def preview_lines(preview: Preview) -> list[str]:
    """The same for a person."""
    found = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in preview.photos.items())
    lines = [f"photos      {found or 'none found'}"]
    if preview.ignored:
        others = passed_over_text(preview.ignored, preview.ignored_extensions)
        lines.append(f"passed over {others}")
    if preview.num_looked_at:
        looked = format_count(preview.num_looked_at, "file")
        lines.append(
            f"looked into {looked} whose name promises no photo, one request each on a bucket "
            "(--include, --exclude)"
        )
    lines += [f"note        {note}" for note in preview.notes]
    if not preview.num_photos:
        return [*lines, "to do       nothing"]
    lines.append(
        f"to do       {format_count(preview.num_photos, 'photo')} of "
        f"{format_count(preview.num_identities, 'identity', 'identities')} in "
        f"{format_count(preview.num_sets, 'set')}, {format_bytes(preview.num_bytes)} to read"
    )
    written = (
        "an unknown amount to write before a first run"
        if preview.num_bytes_written is None
        else f"about {format_bytes(preview.num_bytes_written)} to write"
    )
    lines.append(f"traffic     {written}, about {preview.num_requests:,} requests to the stores")
    if preview.worker_hours is None or preview.wall_hours is None:
        lines.append(f"cost        {preview.basis}")
        return lines if preview.on_gpus is None else [*lines, *preview.on_gpus.lines()]
    lines.append(
        f"cost        about {format_duration(preview.worker_hours * 3600)} of work, "
        f"{format_duration(preview.wall_hours * 3600)} with "
        f"{format_count(preview.workers, 'worker')} "
        f"({preview.seconds_per_photo:.3g} s per photo: {preview.basis})"
    )
    if preview.money is not None:
        parts = ", ".join(f"{name} {amount:,.2f}" for name, amount in preview.money.items())
        total = f"{sum(preview.money.values()):,.2f} {preview.currency}".strip()
        lines.append(f"money       about {total} ({parts}) at the prices given")
    return lines


def _calibrated(plan: Plan, config: RunConfig, roots: Sequence[str], num_photos: int) -> Estimate:
    """The estimate by this machine's own clock; models are loaded for it, which takes seconds."""
    from dladiff.accelerator import best_device
    from pipeline.inspection.calibration import calibrate

    device = str(best_device()) if config.method.reads_model else "cpu"
    measured = calibrate(plan, config, roots, num_photos, device)
    assert measured is not None, "the plan has photos"
    photos = format_count(measured.num_photos, "photo")
    basis = f"measured now on this machine's {measured.device.upper()} over {photos}"
    return estimate(plan, config, measured.seconds_per_photo, basis)


def _mean_image_bytes(store: Store) -> float | None:
    """Mean size of some protected photos, None if OUTPUT has none."""
    sizes = [info.size for info in islice(store.list("images/"), _SAMPLED_IMAGES)]
    return sum(sizes) / len(sizes) if sizes else None


def _catalog_notes(report: CatalogReport) -> list[str]:
    """What a person would want to know of INPUT before a run."""
    notes = []
    if report.num_missing:
        notes.append(f"{format_count(report.num_missing, 'photo')} of the catalog: no such file")
    if empty := len(report.identities_without_photos):
        notes.append(f"{format_count(empty, 'identity', 'identities')} without any photo")
    notes += [f"may not be read, photos in there stay unprotected: {uri}" for uri in report.denied]
    return notes


def _output_notes(num_unfinished_runs: int, num_waiting: int) -> list[str]:
    """What OUTPUT holds that its manifest does not tell yet."""
    notes = []
    if num_waiting:
        photos = format_count(num_waiting, "photo")
        notes.append(f"{photos} held back until the canary is judged: not to be done again")
    if num_unfinished_runs:
        runs = format_count(num_unfinished_runs, "unfinished run")
        notes.append(
            f"{runs}: what they decided is folded into the manifest first, so less may be left "
            "to do"
        )
    return notes
