"""Measures the shipped reference models as their card reports them.

``python -m tools.training.evaluate_reference_models --work ../work --output measured.json`` reads
the models from the package, held-out portraits and ``lfw12`` from the data folder, and the table of
``tools.training.prepare_portraits`` for the nearest training portrait. ``--only`` picks sections.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from dladiff.encoders.students import STUDENT_NAMES, load_student
from dladiff.evaluation.attackers_view import warp_photo
from dladiff.quality import load_learned_perceptual_distance
from tools.training.attributes import BACKGROUNDS, measure_attributes
from tools.training.captions import COLOUR_SATURATION
from tools.training.face_data import is_held_out, save_sheet, to_images
from tools.training.face_meter import FaceMeter, read_photo, to_uint8
from tools.training.recognition import load_held_out_encoder, load_sface

MODELS = Path("dladiff/reference_models")
GUIDANCE_SCALE = 3.0
ADAPTER_GUIDANCE_SCALE = 2.0
"""As the attacks of ``dladiff evaluate``; the adapter learnt from unguided samples."""
NUM_STEPS = 25


class Evaluation:
    """Everything that several sections share, loaded once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.pipeline = StableDiffusionPipeline.from_pretrained(
            arguments.models / "faces-128", torch_dtype=torch.float32
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.table = dict(np.load(arguments.work / "portraits.npz"))
        self.held_out = np.array([is_held_out(str(i)) for i in self.table["identity"]])
        self.sface = FaceMeter(load_sface())
        self.held_out_encoder = FaceMeter(load_held_out_encoder(arguments.data))

    def generate(
        self,
        prompts: list[str],
        *,
        seed: int,
        embed: torch.Tensor | None = None,
        guidance_scale: float = GUIDANCE_SCALE,
    ) -> torch.Tensor:
        """Samples one image per prompt; ``embed`` (128,) is told to the adapter.

        One person per call: diffusers repeats what it is given for each prompt of a batch.
        """
        options = {}
        if embed is not None:
            told = torch.stack([torch.zeros_like(embed), embed]).unsqueeze(1)
            options["ip_adapter_image_embeds"] = [told]
        images = []
        for start in range(0, len(prompts), 16):
            images.append(
                self.pipeline(
                    prompts[start : start + 16],
                    num_inference_steps=NUM_STEPS,
                    guidance_scale=guidance_scale,
                    generator=torch.Generator().manual_seed(seed + start),
                    output_type="pt",
                    **options,
                ).images
            )
        return torch.cat(images).float()

    def sheet(self, images: torch.Tensor, name: str) -> None:
        """Writes a contact sheet into the work folder."""
        save_sheet(images, self.arguments.work / "sheets" / f"{name}.png")


@torch.no_grad()
def autoencoder(evaluation: Evaluation) -> dict[str, float]:
    """PSNR, LPIPS and identity of reconstructions of held-out colour portraits."""
    table = evaluation.table
    from_faces = np.char.startswith(table["source"], "faces128/")
    colour = table["saturation"] > COLOUR_SATURATION
    crops = table["images"][evaluation.held_out & from_faces & colour]
    images = to_images(crops)
    vae = evaluation.pipeline.vae
    batches = images.split(16)  # type: ignore[no-untyped-call]
    parts = [vae.encode(part * 2 - 1).latent_dist.mean for part in batches]
    latents = torch.cat(parts)
    parts = [vae.decode(part).sample for part in latents.split(16)]  # type: ignore[no-untyped-call]
    decoded = torch.cat(parts) / 2 + 0.5
    rounded = decoded.clamp(0, 1).mul(255).round().div(255)
    lpips = load_learned_perceptual_distance("cpu", MODELS / "lpips_alex.safetensors")
    assert lpips is not None
    error = (rounded - images).square().mean(dim=(1, 2, 3))
    results = {
        "num_portraits": float(len(images)),
        "psnr_db": float((-10 * error.log10()).mean()),
        "lpips": float(lpips(rounded, images).mean()),
        "latent_std": float((latents * vae.config.scaling_factor).std()),
    }
    for name, meter in (
        ("sface", evaluation.sface),
        ("held_out_encoder", evaluation.held_out_encoder),
    ):
        before, after = meter.recognise(list(crops)), meter.recognise(to_uint8(rounded))
        results[f"cosine_{name}"] = float((before.embeddings * after.embeddings).sum(1).mean())
    evaluation.sheet(torch.stack([images[:32], rounded[:32]], 1).flatten(0, 1), "autoencoder")
    return results


@torch.no_grad()
def samples(evaluation: Evaluation) -> dict[str, float]:
    """Faces among 64 samples, the nearest training portrait of each, and how alike they are."""
    prompts = ["a photo of a man", "a photo of a woman"] * 16 + ["a photo of a person"] * 32
    images = evaluation.generate(prompts, seed=1000)
    evaluation.sheet(images, "samples")
    seen = evaluation.sface.recognise(to_uint8(images))
    table, held_out = evaluation.table, evaluation.held_out
    nearest = seen.embeddings[seen.found] @ table["sface"][~held_out].T
    # What is usual between strangers: unseen people against the same training portraits.
    stranger = table["sface"][held_out] @ table["sface"][~held_out].T
    rows = np.flatnonzero(~held_out)[nearest.argmax(axis=1)]
    pairs = torch.stack([images[torch.from_numpy(seen.found)], to_images(table["images"][rows])], 1)
    evaluation.sheet(pairs.flatten(0, 1), "nearest")
    among = seen.embeddings[seen.found] @ seen.embeddings[seen.found].T
    noise = torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(5))
    vae = evaluation.pipeline.vae
    decoded = vae.decode(noise / vae.config.scaling_factor).sample / 2 + 0.5
    from_noise = evaluation.sface.recognise(to_uint8(decoded))
    return {
        "face_detection_rate": seen.face_detection_rate,
        "face_detection_rate_of_decoded_noise": from_noise.face_detection_rate,
        "nearest_training_cosine_median": float(np.median(nearest.max(axis=1))),
        "nearest_training_cosine_max": float(nearest.max()),
        "nearest_training_cosine_of_unseen_people_median": float(np.median(stranger.max(axis=1))),
        "cosine_among_samples_mean": float((among.sum() - len(among)) / len(among) ** 2),
    }


def _linear_probe(inputs: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least-squares classifier with a bias; positive scores mean True."""
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    balance = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))[:, None]
    target = np.where(labels, 1.0, -1.0)
    penalty = 1.0 * np.eye(design.shape[1])
    return np.linalg.solve(
        design.T @ (design * balance) + penalty, design.T @ (target * balance[:, 0])
    )


@torch.no_grad()
def attributes(evaluation: Evaluation) -> dict[str, float]:
    """How often a sample shows what its prompt says, against the opposite prompt."""
    table, held_out = evaluation.table, evaluation.held_out
    known = ~held_out & (table["sex"] != "")
    probe = _linear_probe(table["sface"][known], table["sex"][known] == "F")
    check = held_out & (table["sex"] != "")
    scores = np.c_[table["sface"][check], np.ones(check.sum())] @ probe
    results = {"sex_probe_accuracy": float(((scores > 0) == (table["sex"][check] == "F")).mean())}

    def female(images: torch.Tensor) -> NDArray[np.bool_]:
        seen = evaluation.sface.recognise(to_uint8(images))
        is_female: NDArray[np.bool_] = np.c_[seen.embeddings, np.ones(len(images))] @ probe > 0
        return is_female

    def measure(name: str) -> Callable[[torch.Tensor], NDArray[np.float32]]:
        return lambda images: measure_attributes(np.stack(to_uint8(images)))[name]

    colour = table["saturation"] > COLOUR_SATURATION

    def above_median(name: str) -> Callable[[torch.Tensor], NDArray[np.bool_]]:
        return lambda images: measure(name)(images) > np.median(table[name][colour])

    blue = BACKGROUNDS.index("blue")
    pairs: dict[str, tuple[str, str, Callable[[torch.Tensor], NDArray[np.bool_]]]] = {
        "sex": ("a photo of a woman", "a photo of a man", female),
        "tone": (
            "a photo of a man",
            "a black and white photo of a man",
            lambda images: measure("saturation")(images) > COLOUR_SATURATION,
        ),
        "background": (
            "a photo of a man, blue background",
            "a photo of a man, brown background",
            lambda images: measure("background")(images) == blue,
        ),
        "hair": (
            "a photo of a man, light hair",
            "a photo of a man, dark hair",
            above_median("hair"),
        ),
        "smile": (
            "a photo of a man, smiling",
            "a photo of a man, serious",
            above_median("smile"),
        ),
        "glasses": (
            "a photo of a man, glasses",
            "a photo of a man",
            above_median("glasses"),
        ),
    }
    shown = []
    for name, (positive, negative, holds) in pairs.items():
        images = evaluation.generate([positive] * 16 + [negative] * 16, seed=2000)
        shown.append(images[[0, 1, 2, 3, 16, 17, 18, 19]])
        said = np.arange(32) < 16
        results[f"follows_{name}"] = float((holds(images) == said).mean())
    evaluation.sheet(torch.cat(shown), "attributes")
    followed = [value for key, value in results.items() if key.startswith("follows_")]
    results["follows_mean"] = float(np.mean(followed))
    return results


@torch.no_grad()
def caption_swap(evaluation: Evaluation) -> dict[str, float]:
    """Relative change of the noise prediction when the caption is another one."""
    cached = np.load(evaluation.arguments.work / "latents.npz")["latents"][:64]
    latents = torch.from_numpy(cached).float()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(latents.shape, generator=generator)
    pipeline = evaluation.pipeline
    abar = pipeline.scheduler.alphas_cumprod
    first, second = (
        pipeline.encode_prompt(text, "cpu", 1, False)[0].expand(len(latents), -1, -1)
        for text in (
            "a photo of a man, born 1940s, light hair, glasses, blue background",
            "a photo of a woman, born 1970s, dark hair, smiling, brown background",
        )
    )
    changes = []
    for timestep in (100, 300, 500, 700, 900):
        noisy = abar[timestep].sqrt() * latents + (1 - abar[timestep]).sqrt() * noise
        a, b = (pipeline.unet(noisy, timestep, text).sample for text in (first, second))
        changes.append(float((a - b).norm() / a.norm()))
    return {"caption_swap_change": float(np.mean(changes))}


@torch.no_grad()
def adapter(evaluation: Evaluation) -> dict[str, float]:
    """Likeness of adapter images to a person who is in no training: ``lfw12``, one photo in."""
    folder = evaluation.arguments.models / "adapters"
    evaluation.pipeline.load_ip_adapter(
        str(folder),
        subfolder="",
        weight_name="sface-ip-adapter.safetensors",
        image_encoder_folder=None,
    )
    results = {}
    try:
        people = sorted((evaluation.arguments.data / "lfw12").iterdir())
        photos = [[read_photo(path) for path in sorted(p.glob("*.jpg"))] for p in people]
        told = np.stack([evaluation.sface.recognise(p[:1]).embeddings[0] for p in photos])
        images = torch.cat(
            [
                evaluation.generate(
                    ["a photo of a person"] * 4,
                    seed=4000 + index,
                    embed=embed,
                    guidance_scale=ADAPTER_GUIDANCE_SCALE,
                )
                for index, embed in enumerate(torch.from_numpy(told))
            ]
        )
        firsts = [to_images(evaluation.sface.face_crop(p[0])[None]) for p in photos]
        parts = images.split(4)  # type: ignore[no-untyped-call]
        rows = [torch.cat([first, part]) for first, part in zip(firsts, parts, strict=True)]
        save_sheet(torch.cat(rows), evaluation.arguments.work / "sheets/adapter.png", columns=10)
        for name, meter in (
            ("sface", evaluation.sface),
            ("held_out_encoder", evaluation.held_out_encoder),
        ):
            references = np.stack([meter.recognise(p[4:]).reference for p in photos])
            seen = meter.recognise(to_uint8(images))
            cosines = seen.embeddings @ references.T
            own = np.repeat(np.eye(len(people), dtype=bool), 4, axis=0)
            results[f"{name}_own"] = float(cosines[own].mean())
            results[f"{name}_other_person"] = float(cosines[~own].mean())
            results["face_detection_rate"] = seen.face_detection_rate
    finally:
        evaluation.pipeline.unload_ip_adapter()
    return results


@torch.no_grad()
def students(evaluation: Evaluation) -> dict[str, float]:
    """Students on unseen people: cosine to SFace and same/different-person cosines on lfw12."""
    from dladiff.faces import ARCFACE_TEMPLATE, estimate_similarity

    crops, people = [], []
    for folder in sorted((evaluation.arguments.data / "lfw12").iterdir()):
        for path in sorted(folder.glob("*.jpg")):
            image = read_photo(path)
            landmarks = evaluation.sface.find(image)
            if landmarks is not None:
                crops.append(
                    warp_photo(image, estimate_similarity(landmarks, ARCFACE_TEMPLATE), 112)
                )
                people.append(folder.name)
    images, names = to_images(np.stack(crops)), np.array(people)
    same = torch.from_numpy(names[:, None] == names[None, :])
    upper = torch.triu(torch.ones_like(same), diagonal=1)
    teacher = evaluation.sface.encoder.embed(images)
    results = {}
    encoders: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "sface": evaluation.sface.encoder.embed,
        **{name: load_student(name) for name in STUDENT_NAMES},
    }
    for name, encoder in encoders.items():
        embeds = encoder(images)
        cosines = embeds @ embeds.T
        positive, negative = cosines[same & upper], cosines[~same & upper]
        results[f"{name}_same"] = float(positive.mean())
        results[f"{name}_different"] = float(negative.mean())
        results[f"{name}_auc"] = float((positive[:, None] > negative[None, :]).float().mean())
        results[f"{name}_to_sface"] = float((embeds * teacher).sum(dim=1).mean())
    return results


SECTIONS: dict[str, Callable[[Evaluation], dict[str, float]]] = {
    "autoencoder": autoencoder,
    "students": students,
    "samples": samples,
    "attributes": attributes,
    "caption_swap": caption_swap,
    "adapter": adapter,
}


def main() -> None:
    """Runs the sections from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--output", type=Path, help="JSON file; sections not run are kept")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    evaluation = Evaluation(arguments)
    results: dict[str, dict[str, float]] = {}
    if arguments.output and arguments.output.is_file():
        results = json.loads(arguments.output.read_text())
    for section in arguments.only:
        results[section] = SECTIONS[section](evaluation)
        print(
            section, {key: round(value, 4) for key, value in results[section].items()}, flush=True
        )
        if arguments.output:
            arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
