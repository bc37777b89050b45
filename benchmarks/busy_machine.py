"""CPU seconds of a run beside busy processes, relative to the same run alone.

Threads that spin while they wait burn a busy machine's time: the ratio should stay under 1.3. Both
runs protect one generated photo with the real command and print one JSON line. Other work of the
machine is in both; ``load`` says how much there was.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.whole_run import write_album

_MAX_RATIO = 1.3
_COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "protect"]


def main() -> int:
    """Measures both; returns 1 where the ratio is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=4, help="number of busy processes")
    parser.add_argument("--photos", type=int, default=1, help="number of photos")
    parser.add_argument("--side", type=int, default=256, help="side of a photo in pixels")
    parser.add_argument("--preset", default="zero-shot")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        album = Path(folder) / "in"
        write_album(album, arguments.photos, 1, arguments.side)
        _cpu_seconds(album, Path(folder) / "warm", arguments.preset)  # fills caches
        alone = _cpu_seconds(album, Path(folder) / "alone", arguments.preset)
        with _busy(arguments.busy):
            beside = _cpu_seconds(album, Path(folder) / "beside", arguments.preset)
    result = {"cpu_s_alone": round(alone, 1), "cpu_s_beside": round(beside, 1)}
    ratio = round(beside / alone, 2)
    cpus = os.cpu_count()
    print(json.dumps({**vars(arguments), **result, "ratio": ratio, "load": load, "cpus": cpus}))
    return 0 if ratio <= _MAX_RATIO else 1


def _cpu_seconds(album: Path, output: Path, preset: str) -> float:
    """Of one run with all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*_COMMAND, str(album), str(output), "--preset", preset, "--workers", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """So many processes that do nothing but turn, at this one's niceness."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
