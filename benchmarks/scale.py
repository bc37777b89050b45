"""Time and peak memory of what grows with the number of photos: listing, planning, folding.

``python -m benchmarks.scale`` measures, each in a process of its own and on a local store:
``catalog``: photos named by a Parquet file, looked up and planned for an empty OUTPUT, and the plan
written; ``manifest``: the same photos planned when the manifest holds a row of each; ``increment``:
a thousand new photos against that manifest; ``fold``: commits that no manifest has yet. With
``--shard 1/16`` the first two are of one shard of the people.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.folder import read_catalog
from pipeline.clock import utc_now
from pipeline.config import RunConfig, load_config
from pipeline.manifest_row import ManifestRow
from pipeline.output.fold import Fold
from pipeline.output.ledger import Ledger
from pipeline.output.manifest_parts import create_part
from pipeline.output.runs import write_plan
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.records import CommitRecord, StagedRow
from pipeline.storage.store import Store

LINKS_PER_FILE = 10_000
ROWS_PER_PART = 20_000
NEW_PHOTOS = 1000
RULES = DecisionRules("a method", on_method_change="keep")


def main() -> None:
    """Prints one JSON line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "measurements", nargs="*", default=["catalog", "manifest", "increment", "fold"]
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
            command += [f"--shard={arguments.shard}"] if arguments.shard else []
            subprocess.run(command, check=True)


def write_input(folder: Path, num_photos: int, per_identity: int) -> None:
    """As many names as photos, hard links to few small files, and a catalog of them."""
    identities, uris = list[str](), list[str]()
    for number in range(num_photos):
        identity = f"person-{number // per_identity:07d}"
        name = f"{identity}/2026/IMG_{number:08d}.jpg"
        path = folder / name
        if number % per_identity == 0:
            path.parent.mkdir(parents=True)
        source = folder / f"source-{number // LINKS_PER_FILE}"
        if number % LINKS_PER_FILE == 0:
            source.write_bytes(bytes(1000))
        os.link(source, path)
        identities.append(identity)
        uris.append(name)
    pq.write_table(pa.table({"identity": identities, "uri": uris}), folder / "photos.parquet")


def measure_catalog(folder: Path, arguments: argparse.Namespace) -> None:
    """Lists, plans for an OUTPUT that holds nothing, and writes the plan."""
    config, store = of_shard(arguments), Store(str(folder / "empty-out"))
    began = time.monotonic()
    catalog = read_catalog(str(folder / "in" / "photos.parquet"), config.operation, store.uri)
    listed = time.monotonic()
    plan = plan_against_output(catalog, store, config, RULES)
    planned = time.monotonic()
    write_plan(store, "run", plan.photo_sets)
    say(
        "catalog",
        photos=plan.counts.found,
        to_do=plan.counts.to_do,
        sets=len(plan.photo_sets),
        listing_s=listed - began,
        planning_s=planned - listed,
        writing_s=time.monotonic() - planned,
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
    config, store = load_config(operation={"increment": True}), Store(str(folder / "out"))
    require_manifest(folder)
    known = pq.read_table(folder / "in" / "photos.parquet")["identity"].unique().to_pylist()
    step = max(1, len(known) // NEW_PHOTOS)
    people = known[::step][:NEW_PHOTOS]
    uris = [f"{identity}/new.jpg" for identity in people]
    for uri in uris:
        (folder / "in" / uri).write_bytes(bytes(1000))
    news = folder / "in" / "news.parquet"
    pq.write_table(pa.table({"identity": people, "uri": uris}), news)
    began = time.monotonic()
    catalog = read_catalog(str(news), config.operation, store.uri)
    plan = plan_against_output(catalog, store, config, RULES)
    write_plan(store, "run", plan.photo_sets)
    seconds = time.monotonic() - began
    say("increment", photos=plan.counts.found, to_do=plan.counts.to_do, seconds=seconds)
    for uri in uris:
        (folder / "in" / uri).unlink()


def of_shard(arguments: argparse.Namespace) -> RunConfig:
    return load_config(operation={"shard": arguments.shard} if arguments.shard else {})


def require_manifest(folder: Path) -> None:
    """In another process: what writing takes must not count as planning's."""
    if not (folder / "out").exists():
        command = [sys.executable, "-m", "benchmarks.scale", "rows", "--in-this-process"]
        subprocess.run([*command, f"--folder={folder}"], check=True)


def write_manifest(folder: Path, arguments: argparse.Namespace) -> None:
    """A manifest as a run leaves it that protected every photo of the catalog."""
    config, store = load_config(), Store(str(folder / "out"))
    catalog = read_catalog(str(folder / "in" / "photos.parquet"), config.operation, store.uri)
    now = utc_now()
    for number, start in enumerate(range(0, len(catalog.photos), ROWS_PER_PART)):
        rows = [
            ManifestRow(
                identity=photo.identity,
                source_uri=photo.uri,
                source_version=photo.version,
                source_sha256=hashlib.sha256(photo.uri.encode()).hexdigest(),
                output_uri=store.uri_of(photo.output_key),
                output_sha256=hashlib.sha256(photo.output_key.encode()).hexdigest(),
                status="protected",
                method_digest=RULES.method_digest,
                run_id="run",
                committed_at=now,
            )
            for photo in catalog.photos[start : start + ROWS_PER_PART]
        ]
        create_part(store, "run", number, rows, ())


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
    print(json.dumps({"measured": name, **rounded, "peak_gib": round(peak_gib, 2)}), flush=True)


MEASUREMENTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "catalog": measure_catalog,
    "manifest": measure_manifest,
    "increment": measure_increment,
    "fold": measure_fold,
    "rows": write_manifest,
}


if __name__ == "__main__":
    main()
