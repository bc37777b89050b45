"""Photos per second of a whole run on this machine: read, protect, encode, publish, fold.

Protects a generated album (crops of scikit-image's ``astronaut``) into a temporary folder with
the installed command, and prints one JSON line with the settings and the hardware.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

_DLADIFF = Path(sys.executable).with_name("dladiff")


def main() -> int:
    """Measures one run; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=16, help="number of photos")
    parser.add_argument("--identities", type=int, default=2, help="number of persons")
    parser.add_argument("--side", type=int, default=512, help="side of a photo in pixels")
    parser.add_argument("--preset", default="zero-shot")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        album, output = Path(folder) / "in", Path(folder) / "out"
        write_album(album, arguments.photos, arguments.identities, arguments.side)
        command = [str(_DLADIFF), "protect", str(album), str(output)]
        command += ["--preset", arguments.preset, "--workers", str(arguments.workers)]
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        seconds = time.monotonic() - began
        if code == 0:
            print(json.dumps({**vars(arguments), **_result(output, seconds)}))
    return code


def write_album(folder: Path, num_photos: int, num_identities: int, side: int) -> None:
    """Writes different crops of one photo, spread over identities."""
    photo = Image.fromarray(astronaut())
    for number in range(num_photos):
        left, top = 3 * (number % 16), 2 * (number % 12)
        crop = photo.crop((left, top, left + 440, top + 440)).resize((side, side))
        target = folder / f"person-{number % num_identities}" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        crop.save(target, quality=95)


def _result(output: Path, seconds: float) -> dict[str, object]:
    from pipeline.inspection.status import read_status
    from pipeline.storage.store import open_store

    status = read_status(open_store(str(output)))
    return {
        "seconds_with_start": round(seconds, 1),
        "photos_per_s": round(status.photos_per_s, 4),
        "counts": status.counts,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
