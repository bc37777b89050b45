"""Writes the trained models into the package as fp16 safetensors.

``python -m tools.training.export_reference_models --work ../work`` fills
``dladiff/reference_models``; parts whose checkpoint is missing (students, adapter) are left as they
are.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from dladiff.encoders.students import STUDENT_NAMES
from tools.evaluation.face_data import TEMPLATE_128
from tools.training.distill_encoders import Students
from tools.training.export_lpips import export_lpips
from tools.training.identity_adapter import adapter_modules, adapter_state_dict
from tools.training.train_unet import assemble_pipeline, load_trained_denoiser

ADAPTER_FILE = "sface-ip-adapter.safetensors"
LARGEST_FOLDER_BYTES = 60_000_000


def export_pipeline(work: Path, folder: Path) -> None:
    """Writes the pipeline, its face template and the adapter that was trained along or after."""
    vae = AutoencoderKL.from_pretrained(work / "vae")
    denoiser = load_trained_denoiser(work / "denoiser.pt")
    if (work / "adapter.pt").is_file():
        state = torch.load(work / "adapter.pt", map_location="cpu", weights_only=True)
        adapter_modules(denoiser.unet).load_state_dict(state["averaged"])
    adapter = {"format": "pt", "encoder": "SFace 2021dec, unit embedding of 128"}
    (folder / "adapters").mkdir(parents=True, exist_ok=True)
    state = adapter_state_dict(denoiser.unet)
    save_file(_halved(state), folder / "adapters" / ADAPTER_FILE, metadata=adapter)

    target = folder / "faces-128"
    pipeline = assemble_pipeline(vae, denoiser)
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(target, safe_serialization=True)
    _write_bpe_files(target / "tokenizer")
    # Stored in half, computed in single precision unless the caller asks otherwise.
    _edit_json(target / "text_encoder" / "config.json", {"dtype": "float32"})
    # diffusers notes the folder that weights came from, which says something of this machine.
    _edit_json(target / "vae" / "config.json", {"_name_or_path": ""})
    names = ("left_eye", "right_eye", "nose", "left_mouth_corner", "right_mouth_corner")
    template = {
        "landmarks": TEMPLATE_128.tolist(),
        "order": names,
        "unit": "fraction of the crop's side, (x, y)",
        "fit": "least-squares similarity",
    }
    (target / "face_template.json").write_text(json.dumps(template, indent=2) + "\n")


def _halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in state.items()
    }


def _write_bpe_files(folder: Path) -> None:
    """Adds the two files that readers of before transformers 5 look for."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")


def _edit_json(path: Path, changes: dict[str, object]) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content, indent=2) + "\n")


def export_students(work: Path, folder: Path) -> None:
    """Writes one file per student encoder."""
    students = Students()
    state = torch.load(work / "students.pt", map_location="cpu", weights_only=True)
    students.load_state_dict(state["averaged"])
    (folder / "students").mkdir(parents=True, exist_ok=True)
    for name in STUDENT_NAMES:
        path = folder / "students" / f"{name}.safetensors"
        save_file(
            _halved(students.by_name[name].state_dict()), path, metadata={"distilled": "SFace"}
        )


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("dladiff/reference_models"))
    arguments = parser.parse_args()
    export_lpips(arguments.output, half=True)
    if (arguments.work / "denoiser.pt").is_file():
        export_pipeline(arguments.work, arguments.output)
    if (arguments.work / "students.pt").is_file():
        export_students(arguments.work, arguments.output)
    files = sorted(path for path in arguments.output.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(arguments.output)}")
    total = sum(path.stat().st_size for path in files)
    print(f"{total / 1e6:7.2f} MB in all")
    if total > LARGEST_FOLDER_BYTES:
        raise SystemExit("the folder is larger than 60 MB")


if __name__ == "__main__":
    main()
