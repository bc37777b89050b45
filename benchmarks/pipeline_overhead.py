"""What ledger, store and publishing cost beside the work: the real run with work that only sleeps.

``python -m benchmarks.pipeline_overhead`` protects a small album through Ray for each number of
workers. The overhead is how much longer than the sleeping alone it takes from the first attempt to
the last commit. Throughput with no work is compared with that of a bare graph of Ray Data that
reads, decodes, encodes and writes the same photos, without attempts, commits and publishing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from benchmarks.whole_run import write_album
from dladiff.results import Photo, PhotoResult, SetResult
from pipeline import ray_pool
from pipeline.catalog.folder import read_catalog
from pipeline.config import RunConfig, load_config
from pipeline.images.coding import Coding
from pipeline.images.files import PhotoLimits
from pipeline.options import RunOptions
from pipeline.output.ledger import Ledger
from pipeline.planning.form_sets import form_sets
from pipeline.records import PhotoSet
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.worker.compute_set import decode_group, protect_group
from pipeline.worker.protector import Protector
from pipeline.worker.read_photos import photos_of_row, read_row
from pipeline.worker.set_inputs import groups_within, sort_inputs
from pipeline.worker.settings import WorkerSettings

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported
import ray.data


def main() -> None:
    """Prints one JSON line per number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--photos-per-set", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of sleep a set")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--side", type=int, default=256, help="of a photo, px")
    parser.add_argument(
        "--overlap", action="store_true", help="operation.stage_while_computing, as on GPUs"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        album = Path(folder) / "in"
        write_album(
            album, arguments.sets * arguments.photos_per_set, arguments.sets, arguments.side
        )
        for workers in arguments.workers:
            output = Path(folder) / f"out-{workers}"
            measured = measure(album, output, workers, arguments.seconds, arguments.overlap)
            print(json.dumps({**vars(arguments), "workers": workers, **measured}), flush=True)


def measure(
    album: Path, output: Path, workers: int, seconds: float, overlap: bool
) -> dict[str, float]:
    """Overhead, and throughput with no work, in a Ray of its own."""
    config = load_config(
        "zero-shot",
        overrides=[
            "threads=1",
            f"workers={workers}",
            "worker_memory_gb=0.1",
            "canary.num_sets=0",
            f"stage_while_computing={str(overlap).lower()}",
        ],
    )
    ray_pool.start_local(num_cpus=workers + 1)
    try:
        took, num_sets = run_whole(album, output / "sleep", config, seconds)
        ideal = seconds * -(-num_sets // workers)
        whole, _ = run_whole(album, output / "idle", config, 0.0)
        bare = run_bare(album, output / "bare", config, workers)
    finally:
        ray.shutdown()
    return {
        "took_s": round(took, 2),
        "overhead": round(took / ideal - 1, 4) if ideal else 0.0,
        "idle_sets_per_s": round(num_sets / whole, 2),
        "bare_sets_per_s": round(num_sets / bare, 2),
        "idle_to_bare": round(bare / whole, 3),
    }


def run_whole(album: Path, output: Path, config: RunConfig, seconds: float) -> tuple[float, int]:
    """The run as the command does it; seconds from first attempt to last commit, and sets."""
    pool = ray_pool.RayPool(load=partial(load_sleeper, seconds))
    outcome = run_protection(str(album), str(output), config, RunOptions(run_id="run"), pool=pool)
    assert outcome.exit_code == 0, outcome
    store = Store(str(output))
    ledger = Ledger(store, "run")
    commits = [*ledger.commits()]
    started = [
        attempt.started_at for commit in commits for attempt in ledger.attempts(commit.set_key)
    ]
    ended = max(commit.committed_at for commit in commits)
    return _timestamp(ended) - _timestamp(min(started)), len(commits)


def load_sleeper(seconds: float, settings: WorkerSettings) -> Protector:
    """A method that sleeps, and turns photos into their negatives."""

    def protect(photos: Sequence[Photo], *_: object) -> SetResult:
        time.sleep(seconds)
        return SetResult(
            [PhotoResult(photo.key, "protected", image=255 - photo.image) for photo in photos]
        )

    return protect


def run_bare(album: Path, output: Path, config: RunConfig, workers: int) -> float:
    """Seconds from the first set's begin to the last one's end, in a graph without a ledger."""
    operation = config.operation
    catalog = read_catalog(str(album), operation, str(output))
    sets = form_sets(
        catalog.photos,
        {},
        "a method",
        max_photos=operation.max_set_photos,
        max_bytes=operation.max_set_bytes,
        min_photos=0,
    )
    output.mkdir(parents=True)
    read = partial(_read, operation.max_photo_bytes, catalog.roots)
    dataset = (
        ray.data.from_items(
            [{"photo_set": one.to_json()} for one in sets], override_num_blocks=len(sets)
        )
        .map(
            read,
            num_cpus=0.25,
            compute=ray.data.TaskPoolStrategy(size=operation.read_concurrency),
        )
        .map_batches(
            BareWorker,
            fn_constructor_args=(str(output), config),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        )
    )
    times: list[dict[str, Any]] = []
    for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"):
        times += cast(pa.Table, batch).to_pylist()
    return float(max(one["ended"] for one in times) - min(one["began"] for one in times))


class BareWorker:
    """The same decoding and encoding as in the real worker, and nothing else."""

    def __init__(self, folder: str, config: RunConfig) -> None:
        self._folder, self._config = folder, config
        self._protect = load_sleeper(0.0, None)  # type: ignore[arg-type]

    def __call__(self, batch: pa.Table) -> pa.Table:
        began = time.time()
        for row in batch.to_pylist():
            photo_set, reads = photos_of_row(row)
            self._work(photo_set, reads)
        return pa.table({"began": [began], "ended": [time.time()]})

    def _work(self, photo_set: PhotoSet, reads: Sequence[Any]) -> None:
        limits = PhotoLimits.of(self._config.operation)
        store = Store(self._folder)
        for group in groups_within(sort_inputs(photo_set, reads, limits, False), 10**9):
            decoded = decode_group(group, limits, lambda: None)
            result = protect_group(decoded, self._protect, self._config.method, lambda *_: None)
            for number, photo in enumerate(result.photos):
                assert photo.result.image is not None
                store.write(
                    f"{photo_set.key}/{number}.png", Coding("PNG").encode(photo.result.image)
                )


def _read(max_bytes: int, roots: Sequence[str], row: dict[str, Any]) -> dict[str, Any]:
    return read_row(row, max_bytes, roots)


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
