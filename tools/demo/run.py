"""``make demo``: protect an album with the installed command and show what came out.

Runs the very commands that a person would type, and says which.
"""

import argparse
import hashlib
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tools.demo.photos import write_demo_album

_DLADIFF = Path(sys.executable).with_name("dladiff")


def main() -> int:
    """Protects, verifies and pictures an album; returns the first bad exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of photos; default: a NASA photo")
    parser.add_argument("--to", type=Path, default=Path("demo-out"), help="where to write")
    parser.add_argument("--preset", default="balanced", help="settings to start from")
    arguments = parser.parse_args()
    began = time.monotonic()
    album, output = _places(arguments.photos, arguments.to)
    picture = arguments.to / "before_after.png"
    for command in (
        ["protect", album, output, "--preset", arguments.preset, "--on-method-change", "reprotect"],
        ["verify", output, album],
        ["report", output, "--to", picture],
    ):
        code = _run([str(part) for part in command])
        if code:
            return code
    _print_summary(output)
    print(f"\nprotected photos  {output}/images\nto look at        {picture}")
    print(f"first step after  {_first_step(output)}")
    print(f"took              {time.monotonic() - began:.0f} s")
    return 0


def _places(photos: Path | None, folder: Path) -> tuple[Path, Path]:
    """INPUT, and an OUTPUT of its own for each album: OUTPUT remembers what it was made from."""
    if photos is None:
        return write_demo_album(folder / "album"), folder / "protected"
    digest = hashlib.sha256(str(photos.resolve()).encode()).hexdigest()[:8]
    return photos, folder / f"protected-{digest}"


def _run(arguments: list[str]) -> int:
    print(f"\n$ dladiff {shlex.join(arguments)}", flush=True)
    return subprocess.run([str(_DLADIFF), *arguments], check=False).returncode


def _first_step(output: Path) -> str:
    """What the newest run spent until its first step, imports and models included."""
    from pipeline.output.runs import list_runs, read_finished
    from pipeline.storage.store import open_store

    store = open_store(str(output))
    seconds = (read_finished(store, list_runs(store)[-1]) or {}).get("first_step_cpu_s")
    return "nothing: all was known" if seconds is None else f"{seconds:.1f} CPU seconds"


def _print_summary(output: Path) -> None:
    from pipeline.inspection.summary import SUMMARY_COLUMNS, summary_table
    from pipeline.output.manifest import newest_rows
    from pipeline.storage.store import open_store

    print("\nthe manifest, summarised")
    for name, value in summary_table(newest_rows(open_store(str(output)), SUMMARY_COLUMNS)):
        print(f"  {name:<70}{value}")


if __name__ == "__main__":
    sys.exit(main())
