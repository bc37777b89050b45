"""Does customisation of the reference models work, and does a protection take it away?

The attacker's view of a person of ``lfw12``: photos 1-4 (by name) are warped to the face crop,
the UNet is fine-tuned on them under "a photo of sks person", and images of that prompt are
compared with the clean photos 5-12 by an encoder that no protection has seen.

    python -m tools.evaluation.customisation --people 3 --attack dreambooth --output result.json
    python -m tools.evaluation.customisation --people 1 --levels 4 7 12 32    # headroom of layer 1
    python -m tools.evaluation.customisation --people 2 --levels 7 --set dual_surrogates=false
"""

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from peft import LoraConfig
from torch import Tensor, nn

from tools.evaluation.face_data import save_sheet, to_images
from tools.evaluation.face_meter import FaceMeter, Recognised, read_photo, to_uint8
from tools.evaluation.recognition import load_held_out_encoder

MODEL = Path("dladiff/reference_models/faces-128")
PROMPT = "a photo of sks person"
NUM_TRAINED = 4
"""Photos of a person that are protected and trained on; the rest is the clean reference."""


LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
LORA_TARGETS += ["proj_in", "proj_out", "conv1", "conv2"]
"""Attention, feed-forward and convolutions: attention alone learns half as much of a person."""


@dataclass(frozen=True)
class Attack:
    """How the attacker fine-tunes and samples; frozen before any protection is measured."""

    method: str
    """``dreambooth`` trains all weights of the UNet, ``lora`` adapters of it."""
    num_steps: int
    learning_rate: float
    batch_size: int = 4
    lora_rank: int = 16
    num_images: int = 16
    num_inference_steps: int = 25
    guidance_scale: float = 2.0
    seed: int = 0


ATTACKS = {
    "dreambooth": Attack("dreambooth", num_steps=200, learning_rate=1e-4),
    "lora": Attack("lora", num_steps=300, learning_rate=2e-3),
}


@dataclass
class Outcome:
    """Measured on the generated images of one person."""

    person: str
    condition: str
    leak: float
    face_detection_rate: float
    identity_score: float
    leak_to_others: float
    """Mean cosine to the references of the other people: what a stranger scores."""
    floor: float
    """Leak of the model before customisation."""
    ceiling: float
    """Cosine of the autoencoded photos 5-12 to their own reference."""
    seconds: float
    """Wall seconds of attack and measuring."""


def customise(
    pipeline: StableDiffusionPipeline, photos: list[NDArray[np.uint8]], attack: Attack
) -> UNet2DConditionModel:
    """Fine-tunes a copy of the pipeline's UNet on face crops and returns it.

    Args:
        pipeline: The checkpoint; not changed.
        photos: Face crops of the model's own size, RGB uint8.
        attack: Method, steps and rates.
    """
    unet = copy.deepcopy(pipeline.unet).requires_grad_(attack.method == "dreambooth")
    if attack.method == "lora":
        unet.add_adapter(
            LoraConfig(r=attack.lora_rank, lora_alpha=attack.lora_rank, target_modules=LORA_TARGETS)
        )
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=attack.learning_rate, weight_decay=1e-2)
    noise_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(attack.seed)
    prompt_embeds = pipeline.encode_prompt(PROMPT, "cpu", 1, False)[0].detach()
    with torch.no_grad():
        posterior = pipeline.vae.encode(to_images(np.stack(photos)) * 2 - 1).latent_dist
    unet.train()
    for step in range(attack.num_steps):
        rows = torch.randint(len(photos), (attack.batch_size,), generator=generator)
        latents = posterior.sample(generator)[rows] * pipeline.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (len(rows),), generator=generator)
        noisy = noise_scheduler.add_noise(latents, noise, timesteps)
        embeds = prompt_embeds.expand(len(rows), -1, -1)
        loss = (unet(noisy, timesteps, embeds).sample - noise).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = attack.learning_rate * min(1.0, (step + 1) / 20)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return unet.eval().requires_grad_(False)


@torch.no_grad()
def generate(
    pipeline: StableDiffusionPipeline, unet: UNet2DConditionModel, attack: Attack
) -> Tensor:
    """Samples ``attack.num_images`` images of the prompt, NCHW in [0, 1]."""
    sampler = StableDiffusionPipeline(
        **{**pipeline.components, "unet": unet}, requires_safety_checker=False
    )
    sampler.set_progress_bar_config(disable=True)
    images = sampler(
        [PROMPT] * attack.num_images,
        num_inference_steps=attack.num_inference_steps,
        guidance_scale=attack.guidance_scale,
        generator=torch.Generator().manual_seed(attack.seed + 1),
        output_type="pt",
    ).images
    return torch.as_tensor(images).float()


@torch.no_grad()
def autoencoded(
    pipeline: StableDiffusionPipeline, photos: list[NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    """Encodes and decodes crops: the best that the model could ever show."""
    latents = pipeline.vae.encode(to_images(np.stack(photos)) * 2 - 1).latent_dist.mean
    return to_uint8(pipeline.vae.decode(latents).sample / 2 + 0.5)


def protected_photos(
    photos: list[NDArray[np.uint8]], epsilon_levels: float, preset: str, changed: list[str]
) -> list[NDArray[np.uint8]]:
    """Protects photos by layer 1 alone at a budget in 8-bit levels.

    Args:
        photos: Whole photos, RGB uint8.
        epsilon_levels: Budget; the signed step grows and shrinks with it.
        preset: Where all other settings come from.
        changed: ``name=value`` of fields of layer 1, the value in JSON.

    Raises:
        RuntimeError: If layer 1 left the photos as they were.
    """
    from dladiff.config import Layer1Settings, preset_settings
    from dladiff.models import load_models
    from dladiff.protect import protect_photo_set
    from dladiff.results import Photo

    settings = preset_settings(preset)
    layer1 = settings.layer1
    changes = {
        "epsilon_levels": epsilon_levels,
        "step_size_levels": layer1.step_size_levels * epsilon_levels / layer1.epsilon_levels,
        **{name: json.loads(value) for name, value in (text.split("=", 1) for text in changed)},
    }
    settings = settings.model_copy(
        update={
            "layer1": Layer1Settings(**{**layer1.model_dump(), **changes}),
            "layer2": settings.layer2.model_copy(update={"enabled": False}),
        }
    )
    result = protect_photo_set(
        [Photo(key=str(index), image=photo) for index, photo in enumerate(photos)],
        [],
        load_models(settings, "cpu"),
        settings,
    )
    images = [photo.image for photo in result.photos]
    if any(image is None for image in images):
        raise RuntimeError("layer 1 gave no image")
    return [image for image in images if image is not None]


def measure(
    person: str,
    condition: str,
    trained: list[NDArray[np.uint8]],
    clean: list[NDArray[np.uint8]],
    references: dict[str, NDArray[np.float32]],
    baselines: tuple[float, float],
    pipeline: StableDiffusionPipeline,
    meter: FaceMeter,
    attack: Attack,
    sheets: Path | None,
) -> Outcome:
    """Customises on four photos, generates and compares with the person's clean reference."""
    start = time.perf_counter()
    crops = [meter.face_crop(*pair) for pair in zip(trained, clean, strict=True)]
    unet = customise(pipeline, crops, attack)
    images = generate(pipeline, unet, attack)
    if sheets is not None:
        save_sheet(images, sheets / f"{person}_{attack.method}_{condition}.png")
    seen = meter.recognise(to_uint8(images))
    others = [reference for name, reference in references.items() if name != person]
    return Outcome(
        person=person,
        condition=condition,
        leak=seen.leak(references[person]),
        face_detection_rate=seen.face_detection_rate,
        identity_score=seen.identity_score(references[person]),
        leak_to_others=float(np.mean([seen.leak(other) for other in others])),
        floor=baselines[0],
        ceiling=baselines[1],
        seconds=time.perf_counter() - start,
    )


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--people", type=int, default=3, help="so many by name")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many")
    parser.add_argument("--attack", choices=sorted(ATTACKS), default="dreambooth")
    parser.add_argument("--steps", type=int, help="instead of the attack's own")
    parser.add_argument("--learning-rate", type=float, help="instead of the attack's own")
    parser.add_argument("--guidance-scale", type=float, help="instead of the attack's own")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--levels", type=float, nargs="*", default=[], help="budgets of layer 1")
    parser.add_argument("--preset", default="fast", help="settings of layer 1")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="of layer 1")
    parser.add_argument("--sheets", type=Path, help="folder for sheets; never publish them")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    attack = ATTACKS[arguments.attack]
    chosen = {
        "num_steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "guidance_scale": arguments.guidance_scale,
        "num_images": arguments.images,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    attack = Attack(**{**asdict(attack), **given})
    print(attack, flush=True)

    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model, torch_dtype=torch.float32)
    meter = FaceMeter(load_held_out_encoder(arguments.data))
    photos = {
        folder.name: [read_photo(path) for path in sorted(folder.glob("*.jpg"))]
        for folder in sorted((arguments.data / "lfw12").iterdir())
    }
    clean: dict[str, Recognised] = {
        person: meter.recognise(images[NUM_TRAINED:]) for person, images in photos.items()
    }
    references = {person: recognised.reference for person, recognised in clean.items()}
    untrained = meter.recognise(to_uint8(generate(pipeline, pipeline.unet, attack)))

    outcomes = []
    for person in list(photos)[arguments.skip :][: arguments.people]:
        crops = [meter.face_crop(photo) for photo in photos[person][NUM_TRAINED:]]
        ceiling = meter.recognise(autoencoded(pipeline, crops)).leak(references[person])
        baselines = untrained.leak(references[person]), ceiling
        trained = photos[person][:NUM_TRAINED]
        conditions = {"clean": trained}
        for levels in arguments.levels:
            name = f"layer1_{levels:g}"
            conditions[name] = protected_photos(trained, levels, arguments.preset, arguments.set)
        of_person = []
        for condition, images in conditions.items():
            outcome = measure(
                person, condition, images, trained, references, baselines, pipeline, meter,
                attack, arguments.sheets,
            )  # fmt: skip
            of_person.append(outcome)
            effect = (of_person[0].leak - outcome.leak) / (of_person[0].leak - outcome.floor)
            print(
                f"{person} {condition}: leak {outcome.leak:.3f} (floor {outcome.floor:.3f}, "
                f"others {outcome.leak_to_others:.3f}, ceiling {outcome.ceiling:.3f}) "
                f"FDR {outcome.face_detection_rate:.2f} ISM {outcome.identity_score:.3f} "
                f"effect {effect:.2f}, {outcome.seconds:.0f} s",
                flush=True,
            )
        outcomes += of_person
    for condition in dict.fromkeys(outcome.condition for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.condition == condition]
        means = {
            key: float(np.mean([getattr(row, key) for row in rows]))
            for key in ("leak", "floor", "ceiling", "leak_to_others", "face_detection_rate")
        }
        print(f"mean of {len(rows)} {condition}: {means}", flush=True)
    if arguments.output:
        content = {"attack": asdict(attack), "outcomes": [asdict(row) for row in outcomes]}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
