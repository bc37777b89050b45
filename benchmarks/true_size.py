"""One photo through ``dladiff protect`` at the size of published models, with random weights.

``python -m benchmarks.true_size`` writes Stable Diffusion 1.5 as a folder in diffusers format, and
FLUX.2's autoencoder as another, and protects one photo of 512 px against each with a few steps:
what reads, computes and writes is the command itself. Random weights protect nothing; seconds and
memory are those of the real ones. Seconds a step hold what a photo takes besides. Minutes of a
core, 12 GB of memory, 2.5 GB of disk. Prints one JSON line a model.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.published_models import write_autoencoder, write_checkpoint
from benchmarks.whole_run import write_album

STEPS = 3
"""Of the loop; every third looks at the photo alone, so two go through the autoencoder."""
_FEW = (
    f"layer1.likeness.num_steps={STEPS}",
    "layer1.likeness.photo_step_every=3",
    "layer1.likeness.finishing_steps=1",
    "operation.worker_memory_gb=13",
)
_COMMAND = "from pipeline.entry import main; main()"


def main() -> int:
    """Measures one model after the other; returns 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["sd15", "flux2"], action="append")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.model or ["sd15", "flux2"]:
        with tempfile.TemporaryDirectory() as folder:
            measured = protect_one(name, Path(folder))
        failed |= measured["exit_code"] != 0
        print(json.dumps(measured), flush=True)
    return int(failed)


def protect_one(name: str, folder: Path) -> dict[str, object]:
    """Protects one photo against a model; what it took in all, models and preflight included."""
    if name == "sd15":
        model = write_checkpoint(folder / "model")
        settings = [f"layer1.surrogate.checkpoint={model}"]
    else:
        model = write_autoencoder(name, folder / "model")
        # Only every second step is its: the embedded model's autoencoder has the others.
        settings = [f"layer1.autoencoders=[{{checkpoint: {model}, resolution: 512}}]"]
    write_album(folder / "in", 1, 1, 512)
    command = [sys.executable, "-c", _COMMAND, "protect", str(folder / "in"), str(folder / "out")]
    for setting in (*settings, *_FEW):
        command += ["--set", setting]
    began = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - began
    measured: dict[str, object] = {
        "model": name,
        "exit_code": done.returncode,
        "steps": STEPS,
        "seconds_of_the_command": round(seconds, 1),
        "cpu_seconds_of_the_command": round(_of_children().ru_utime, 1),
        "peak_memory_gb": round(_of_children().ru_maxrss * 1024 / 1e9, 2),
        "cpus": os.cpu_count(),
    }
    if done.returncode:
        return measured | {"error": (done.stdout + done.stderr)[-2000:]}
    return measured | _from_output(folder / "out")


def _of_children() -> resource.struct_rusage:
    """Of ended children and theirs: sums of seconds, the largest resident set."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def _from_output(output: Path) -> dict[str, object]:
    from pipeline.output.manifest import read_manifest
    from pipeline.storage.store import open_store

    columns = ("status", "seconds", "face_visibility_jod")
    (row,) = read_manifest(open_store(str(output)), columns).to_pylist()
    return {**row, "seconds_a_step": round(row["seconds"] / STEPS, 1)}


if __name__ == "__main__":
    sys.exit(main())
