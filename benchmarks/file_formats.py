"""Bytes of protected files beside those of their originals, and what coding costs in time.

``python -m benchmarks.file_formats FOLDER...`` protects a few photos of each folder of people
(``<person>/<photo>.jpg``) as they are and as lossy WebP, with the installed command, and prints a
JSON line per folder and format. ``--megapixels 12 48`` protects one large photo of each size
instead, with seconds and memory.
"""

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from skimage.data import astronaut

from pipeline.catalog.output_keys import ending_of
from pipeline.images.coding import Coding, decode_coded, prepare
from pipeline.images.files import NO_LIMITS, decode_photo
from pipeline.manifest_row import ManifestRow
from pipeline.output.manifest import newest_rows
from pipeline.storage.store import open_store, read_uri

WEBP_QUALITY = 80


def main() -> None:
    """Prints JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--photos", type=int, default=4, help="of each folder and format")
    parser.add_argument("--megapixels", type=int, nargs="*", default=[])
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        with tempfile.TemporaryDirectory() as place:
            album, output = Path(place) / "in", Path(place) / "out"
            write_both(folder, album, arguments.photos)
            protect(album, output, arguments.preset, arguments.overrides)
            rows = [row for row in newest_rows(open_store(str(output))) if row.output_bytes]
            for file_format in ("jpeg", "webp"):
                of_format = [row for row in rows if row.output_format == file_format]
                named = {"folder": folder.name, "preset": arguments.preset, "format": file_format}
                print(json.dumps(named | sizes(of_format)), flush=True)
    for megapixels in arguments.megapixels:
        with tempfile.TemporaryDirectory() as place:
            album, output = Path(place) / "in", Path(place) / "out"
            write_large(album / "person" / "1.jpg", megapixels)
            seconds, peak_gb = protect(album, output, arguments.preset, arguments.overrides)
            (row,) = newest_rows(open_store(str(output)))
            measured = {"seconds": round(seconds, 1), "peak_gb": round(peak_gb, 2)}
            named = {
                "megapixels": megapixels,
                "preset": arguments.preset,
                "set": arguments.overrides,
            }
            print(json.dumps(named | measured | sizes([row]) | coding_seconds(row)), flush=True)


def write_both(folder: Path, album: Path, num_photos: int) -> None:
    """The first photo of each of so many people, as it is and as WebP."""
    people = [person for person in sorted(folder.iterdir()) if person.is_dir()]
    for person in people[:: max(1, len(people) // num_photos)][:num_photos]:
        source = min(person.iterdir())
        target = album / person.name
        target.mkdir(parents=True)
        (target / source.name).write_bytes(source.read_bytes())
        with Image.open(source) as picture:
            picture.save(target / "as.webp", quality=WEBP_QUALITY)


def write_large(path: Path, megapixels: int) -> None:
    """A photo of 4:3 with a face that fills a third of its height."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    path.parent.mkdir(parents=True)
    size = (width, round(width * 3 / 4))
    Image.fromarray(astronaut()).resize(size, Image.Resampling.LANCZOS).save(path, quality=90)


def protect(album: Path, output: Path, preset: str, overrides: list[str]) -> tuple[float, float]:
    """Runs the command with one worker; wall seconds, and the largest memory of a process in GB."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    command += ["protect", str(album), str(output), "--preset", preset, "--workers", "1"]
    command += [part for override in overrides for part in ("--set", override)]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return time.monotonic() - began, peak


def sizes(rows: list[ManifestRow]) -> dict[str, Any]:
    """Medians over photos."""
    ratios = [row.output_bytes / row.source_bytes for row in rows]  # type: ignore[operator]
    return {
        "photos": len(rows),
        "source_bytes": statistics.median(row.source_bytes or 0 for row in rows),
        "output_bytes": statistics.median(row.output_bytes or 0 for row in rows),
        "ratio": round(statistics.median(ratios), 3),
        "largest_ratio": round(max(ratios), 3),
        "ratio_as_png": round(statistics.median(_as_png(rows)), 3),
    }


def _as_png(rows: list[ManifestRow]) -> Iterator[float]:
    for row in rows:
        assert row.output_uri is not None
        assert row.source_bytes
        pixels = decode_coded(read_uri(row.output_uri))
        yield len(Coding("PNG").encode(pixels)) / row.source_bytes


def coding_seconds(row: ManifestRow) -> dict[str, float]:
    """Seconds of one decoding, one coding and one look at the file, as a run does them."""
    assert row.output_uri is not None
    content, began = read_uri(row.source_uri), time.monotonic()
    decoded = decode_photo(content, NO_LIMITS)
    photo = prepare(content, decoded, ending_of(row.source_uri), ending_of(row.output_uri))
    read = time.monotonic()
    coded = photo.coding.encode(decoded.image)
    written = time.monotonic()
    with Image.open(io.BytesIO(coded)) as picture:
        picture.load()
    return {
        "decode_s": round(read - began, 2),
        "encode_s": round(written - read, 2),
        "read_back_s": round(time.monotonic() - written, 2),
    }


if __name__ == "__main__":
    main()
