"""Time and peak memory of what grows with the number of photos: listing, planning, folding.

``python -m benchmarks.scale`` measures, each in a process of its own and on a local store:
``catalog``: photos named by an inventory (a Parquet file), planned for an empty OUTPUT, the plan
written and its first window read, as a run does before workers start; ``manifest``: the same photos
when the manifest holds a row of each; ``increment``: a thousand new photos against that manifest;
``status``: what that command reads of it;
``fold``: commits that no manifest has yet. With ``--shard 1/16`` the first two are of one shard of
the people. The photos exist in the inventory only.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.folder import read_catalog
from pipeline.catalog.output_keys import output_key
from pipeline.clock import utc_now
from pipeline.config import RunConfig, load_config
from pipeline.inspection.status import read_status
from pipeline.manifest_row import MANIFEST_SCHEMA, CosineColumn, ManifestRow
from pipeline.output.fold import Fold
from pipeline.output.ledger import Ledger
from pipeline.output.manifest_parts import part_key
from pipeline.output.runs import finish_run, start_run, write_plan
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.records import CommitRecord, StagedRow
from pipeline.run import WINDOW_SETS
from pipeline.storage.store import Store

PLACE = "s3://photos/people"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
INVENTORY = pa.schema(
    [
        ("identity", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("e_tag", pa.string()),
        ("last_modified_date", pa.timestamp("ms", "UTC")),
    ]
)
ROWS_PER_PART = 20_000
NEW_PHOTOS = 1000
RULES = DecisionRules("a method", on_method_change="keep")


def main() -> None:
    """Prints one JSON line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "measurements", nargs="*", default=["catalog", "manifest", "increment", "status", "fold"]
    )
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--photos-per-identity", type=int, default=10)
    parser.add_argument("--commits", type=int, default=50_000)
    parser.add_argument("--shard", help="As the option of `dladiff protect`.")
    parser.add_argument("--folder", type=Path, help="Where to work; default: a temporary folder.")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_this_process:
        [name] = arguments.measurements
        MEASUREMENTS[name](arguments.folder, arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_input(Path(folder) / "in", arguments.photos, arguments.photos_per_identity)
        for name in arguments.measurements:
            command = [sys.executable, "-m", "benchmarks.scale", name, "--in-this-process"]
            command += [f"--folder={folder}", f"--commits={arguments.commits}"]
            command += [f"--photos-per-identity={arguments.photos_per_identity}"]
            command += [f"--shard={arguments.shard}"] if arguments.shard else []
            subprocess.run(command, check=True)


def write_input(folder: Path, num_photos: int, per_identity: int) -> None:
    """An inventory of as many photos, as a bucket's store would write it."""
    folder.mkdir(parents=True)
    with pq.ParquetWriter(folder / "photos.parquet", INVENTORY) as writer:
        for start in range(0, num_photos, ROWS_PER_PART):
            numbers = range(start, min(start + ROWS_PER_PART, num_photos))
            writer.write_table(inventory(numbers, per_identity))


def inventory(numbers: Iterable[int], per_identity: int, name: str = "IMG") -> pa.Table:
    """Rows of photos that are nowhere; each tenth person sends photos of any age."""
    rows = [
        {
            "identity": (identity := f"person-{number // per_identity:07d}"),
            "uri": f"{PLACE}/{identity}/2026/{name}_{number:08d}.jpg",
            "size": 1_000_000 + number * 7919 % 9_000_000,
            "e_tag": f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}",
            "last_modified_date": EPOCH + timedelta(seconds=number * 31 % 30_000_000),
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, INVENTORY)


def measure_catalog(folder: Path, arguments: argparse.Namespace) -> None:
    """Lists, plans for an OUTPUT that holds nothing, writes the plan, and begins it."""
    config, store = of_shard(arguments), Store(str(folder / "empty-out"))
    began = time.monotonic()
    catalog = read_catalog(str(folder / "in" / "photos.parquet"), config.operation, store.uri)
    listed = time.monotonic()
    plan = plan_against_output(catalog, store, config, RULES)
    planned = time.monotonic()
    write_plan(store, "run", plan.photo_sets)
    window, _ = plan.photo_sets.window(WINDOW_SETS)
    say(
        "catalog",
        photos=plan.counts.found,
        to_do=plan.counts.to_do,
        sets=len(plan.photo_sets),
        listing_s=listed - began,
        planning_s=planned - listed,
        writing_s=time.monotonic() - planned,
        in_first_window=len(window),
    )


def measure_manifest(folder: Path, arguments: argparse.Namespace) -> None:
    """Plans the same photos when the manifest has a row of each: nothing is to do."""
    config, store = of_shard(arguments), Store(str(folder / "out"))
    require_manifest(folder)
    began = time.monotonic()
    catalog = read_catalog(str(folder / "in" / "photos.parquet"), config.operation, store.uri)
    listed = time.monotonic()
    plan = plan_against_output(catalog, store, config, RULES)
    say(
        "manifest",
        photos=plan.counts.found,
        to_do=plan.counts.to_do,
        listing_s=listed - began,
        planning_s=time.monotonic() - listed,
    )


def measure_increment(folder: Path, arguments: argparse.Namespace) -> None:
    """Plans a thousand new photos of as many people whom the manifest knows."""
    operation = {"increment": True, "allow_prefixes": [PLACE]}
    config, store = load_config(operation=operation), Store(str(folder / "out"))
    require_manifest(folder)
    num_photos = pq.ParquetFile(folder / "in" / "photos.parquet").metadata.num_rows
    step = max(1, num_photos // NEW_PHOTOS)
    numbers = range(0, num_photos, step)[:NEW_PHOTOS]
    news = folder / "in" / "news.parquet"
    pq.write_table(inventory(numbers, arguments.photos_per_identity, "NEW"), news)
    began = time.monotonic()
    catalog = read_catalog(str(news), config.operation, store.uri)
    plan = plan_against_output(catalog, store, config, RULES)
    write_plan(store, "run", plan.photo_sets)
    seconds = time.monotonic() - began
    say("increment", photos=plan.counts.found, to_do=plan.counts.to_do, seconds=seconds)


def measure_status(folder: Path, arguments: argparse.Namespace) -> None:
    """Reads the numbers that ``dladiff status`` shows of that manifest."""
    store = Store(str(folder / "out"))
    require_manifest(folder)
    start_run(store, "run", {})
    finish_run(store, "run", {"exit_code": 0})
    began = time.monotonic()
    status = read_status(store)
    say("status", photos=sum(status.counts.values()), seconds=time.monotonic() - began)


def of_shard(arguments: argparse.Namespace) -> RunConfig:
    return load_config(operation={"shard": arguments.shard, "allow_prefixes": [PLACE]})


def require_manifest(folder: Path) -> None:
    """In another process: what writing takes must not count as planning's."""
    if not (folder / "out").exists():
        command = [sys.executable, "-m", "benchmarks.scale", "rows", "--in-this-process"]
        subprocess.run([*command, f"--folder={folder}"], check=True)


def write_manifest(folder: Path, arguments: argparse.Namespace) -> None:
    """A manifest as a run leaves it that protected every photo of the inventory."""
    store = Store(str(folder / "out"))
    file = pq.ParquetFile(folder / "in" / "photos.parquet")
    for number, batch in enumerate(file.iter_batches(ROWS_PER_PART)):
        found = batch.to_pylist()
        keys = [output_key(row["identity"], row["uri"].split("/", 5)[5]) for row in found]
        table = pa.Table.from_pylist([known_row().to_columns()] * len(found), MANIFEST_SCHEMA)
        for name, values in {
            "identity": [row["identity"] for row in found],
            "source_uri": [row["uri"] for row in found],
            "source_version": [row["e_tag"] for row in found],
            "source_bytes": [row["size"] for row in found],
            "source_sha256": [hashlib.sha256(row["uri"].encode()).hexdigest() for row in found],
            "output_uri": [store.uri_of(key) for key in keys],
            "output_sha256": [hashlib.sha256(key.encode()).hexdigest() for key in keys],
        }.items():
            index = table.schema.get_field_index(name)
            field = table.schema.field(index)
            table = table.set_column(index, field, pa.array(values, field.type))
        path = folder / "out" / part_key("run", number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")


def known_row() -> ManifestRow:
    """What the rows of the manifest share."""
    return ManifestRow(
        identity="",
        source_uri="",
        source_version="",
        status="protected",
        method_digest=RULES.method_digest,
        width=4000,
        height=3000,
        num_faces=1,
        psnr_db=41.0,
        ssim=0.98,
        face_visibility_jod=9.4,
        identity_cosines=[CosineColumn("sface", False, 1.0, 0.1, 0.12)],
        run_id="run",
        committed_at=utc_now(),
    )


def measure_fold(folder: Path, arguments: argparse.Namespace) -> None:
    """Folds commits of one photo each, as after a driver that died at the end of a long run."""
    store = Store(str(folder / "fold-out"))
    ledger = Ledger(store, "run")
    for record in commits(arguments.commits):
        # Not the ledger's way, which syncs each file to disk.
        path = folder / "fold-out" / ledger._commit_key(record.set_key, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.to_bytes())
    began = time.monotonic()
    num_added = Fold(store, "run")()
    say("fold", commits=num_added, folding_s=time.monotonic() - began)


def commits(count: int) -> Iterator[CommitRecord]:
    """Decisions without an image to publish, whose copying is the store's speed, not the fold's."""
    now = utc_now()
    for number in range(count):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        uri = f"file:///in/person-{number}/1.jpg"
        row = ManifestRow(
            identity=f"person-{number}",
            set_key=key,
            source_uri=uri,
            source_version="1",
            status="skipped",
            reason="no_face",
            method_digest=RULES.method_digest,
            run_id="run",
            committed_at=now,
        )
        staged = StagedRow(row, f"images/person-{number}/1.jpg.png")
        yield CommitRecord(
            key, 0, row.identity, "run", "an attempt", "done", [staged], committed_at=now
        )


def say(name: str, **measured: float) -> None:
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rounded = {key: round(value, 2) for key, value in measured.items()}
    cpu = round(time.process_time(), 1)  # what a busy machine does not stretch
    print(
        json.dumps({"measured": name, **rounded, "cpu_s": cpu, "peak_gib": round(peak_gib, 2)}),
        flush=True,
    )


MEASUREMENTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "catalog": measure_catalog,
    "manifest": measure_manifest,
    "increment": measure_increment,
    "status": measure_status,
    "fold": measure_fold,
    "rows": write_manifest,
}


if __name__ == "__main__":
    main()
