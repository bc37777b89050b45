"""Writes the trained models into the package as fp16 safetensors.

``python -m tools.training.export_reference_models --work ../work`` fills
``dladiff/reference_models``; parts whose checkpoint is missing (students, adapter) are left as they
are. ``--build attacker-128`` adds the attacker's model as a folder of its own, without an adapter.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from dladiff.encoders.students import STUDENT_NAMES
from tools.training.builds import BUILDS, BuildName
from tools.training.distill_encoders import Students
from tools.training.export_lpips import export_lpips
from tools.training.face_data import TEMPLATE_128
from tools.training.identity_adapter import adapter_modules, adapter_state_dict
from tools.training.train_unet import Denoiser, assemble_pipeline, load_trained_denoiser
from tools.training.training_stage import load_averaged

ADAPTER_FILE = "sface-ip-adapter.safetensors"
LARGEST_FOLDER_BYTES = 60_000_000
LARGEST_ATTACKER_BYTES = 30_000_000


def export_model(work: Path, folder: Path, build: BuildName) -> None:
    """Writes a build's pipeline, and of the one that protects also its identity adapter."""
    vae = AutoencoderKL.from_pretrained(work / "vae")
    denoiser = load_trained_denoiser(work / "denoiser.pt", build)
    export_pipeline(assemble_pipeline(vae, denoiser), folder / build)
    if build == "faces-128":
        if (work / "adapter.pt").is_file():
            load_averaged(adapter_modules(denoiser.unet), work / "adapter.pt", build)
        export_adapter(denoiser, folder / "adapters")


def export_pipeline(pipeline: StableDiffusionPipeline, target: Path) -> None:
    """Writes a pipeline in fp16 with the template of its face crops; ``pipeline`` is halved."""
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


def export_adapter(denoiser: Denoiser, folder: Path) -> None:
    """Writes the adapter that was trained along with the UNet or after it."""
    metadata = {"format": "pt", "encoder": "SFace 2021dec, unit embedding of 128"}
    folder.mkdir(parents=True, exist_ok=True)
    state = adapter_state_dict(denoiser.unet)
    save_file(_halved(state), folder / ADAPTER_FILE, metadata=metadata)


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
    parser.add_argument("--build", choices=sorted(BUILDS), default="faces-128", help="which model")
    arguments = parser.parse_args()
    if arguments.build == "faces-128":
        export_lpips(arguments.output, half=True)
    if (arguments.work / "denoiser.pt").is_file():
        export_model(arguments.work, arguments.output, arguments.build)
    if (arguments.work / "students.pt").is_file():
        export_students(arguments.work, arguments.output)
    list_files(arguments.output)


def list_files(folder: Path) -> None:
    """Prints what lies in the package's folder.

    Raises:
        SystemExit: If the attacker's model, or all that is beside it, is larger than it may be.
    """
    sizes = {True: 0, False: 0}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        print(f"{size / 1e6:7.2f} MB  {path.relative_to(folder)}")
        sizes["attacker-128" in path.relative_to(folder).parts] += size
    print(f"{sizes[False] / 1e6:7.2f} MB and {sizes[True] / 1e6:.2f} MB of the attacker's model")
    if sizes[False] > LARGEST_FOLDER_BYTES:
        raise SystemExit("what is beside the attacker's model is larger than 60 MB")
    if sizes[True] > LARGEST_ATTACKER_BYTES:
        raise SystemExit("the attacker's model is larger than 30 MB")


if __name__ == "__main__":
    main()
