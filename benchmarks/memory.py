"""Peak memory of a worker on one set of large photos, beside what Ray reserves for it.

``python -m benchmarks.memory`` lets a worker in this process protect 16 photos of 12 megapixels of
one person with few iterations: what is held in memory does not depend on their number.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

from dladiff.settings_in_use import unread_settings
from pipeline.catalog.folder import read_catalog
from pipeline.config import RunConfig, load_config
from pipeline.planning.form_sets import form_sets
from pipeline.records import PhotoSet
from pipeline.worker.code_digest import code_digest
from pipeline.worker.protect_photos import PhotoSetWorker
from pipeline.worker.read_photos import read_photo_set
from pipeline.worker.settings import WorkerSettings

SIZE = (4000, 3000)
FEW = {"loop.num_steps": 4, "surrogates.num_epochs": 1}
"""Steps that show the peak of memory; those that the preset does not read are left out."""


def main() -> None:
    """Prints one JSON line: photos, statuses, seconds, peak and reserved memory in GB (1e9)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--preset", default="balanced")
    arguments = parser.parse_args()
    unread = unread_settings(load_config(arguments.preset).method)
    few = [f"{path}={count}" for path, count in FEW.items() if path not in unread]
    config = load_config(arguments.preset, overrides=few)
    with tempfile.TemporaryDirectory() as folder:
        album = Path(folder) / "in"
        write_large_photos(album / "person", arguments.photos)
        (photo_set,) = one_set(album, config)
        worker = PhotoSetWorker(worker_settings(Path(folder) / "out", config))
        loaded = peak_gb()
        began = time.monotonic()
        outcome = worker(photo_set, read_photo_set(photo_set, config.operation.max_photo_bytes))
    measured = {
        "statuses": outcome.statuses,
        "seconds": round(time.monotonic() - began, 1),
        "models_loaded_gb": loaded,
        "peak_gb": peak_gb(),
        "reserved_gb": round(config.operation.worker_memory_gb * 1024**3 / 1e9, 2),
    }
    print(json.dumps({**vars(arguments), **measured}))


def write_large_photos(folder: Path, count: int) -> None:
    """Different crops of one photo, enlarged to 12 megapixels."""
    folder.mkdir(parents=True)
    photo = Image.fromarray(astronaut())
    for number in range(count):
        crop = photo.crop((2 * number, 0, 2 * number + 440, 330))
        crop.resize(SIZE).save(folder / f"{number}.jpg", quality=90)


def one_set(album: Path, config: RunConfig) -> list[PhotoSet]:
    """All photos as one set, as planning forms it."""
    catalog = read_catalog(str(album), config.operation)
    operation = config.operation
    return form_sets(
        catalog.photos,
        {},
        "method",
        max_photos=operation.max_set_photos,
        max_bytes=operation.max_set_bytes,
        min_photos=0,
    )


def worker_settings(output: Path, config: RunConfig) -> WorkerSettings:
    """Of a worker without a driver."""
    return WorkerSettings(
        output_uri=f"file://{output}",
        run_id="memory",
        config=config,
        method_digest="m",
        models_digest="w",
        code_digest=code_digest(),
    )


def peak_gb() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round((peak if sys.platform == "darwin" else peak * 1024) / 1e9, 2)


if __name__ == "__main__":
    main()
