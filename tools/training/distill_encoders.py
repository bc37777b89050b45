"""Distils SFace into the three student encoders of ``dladiff.student_encoders``.

``python -m tools.training.distill_encoders --work ../work --minutes 20 --cooldown 0.5`` reads
``portraits.npz`` of ``tools.training.prepare_portraits``.
"""

from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.encoders.students import STUDENT_NAMES, StudentName, build_student
from tools.training.face_data import is_held_out, to_images
from tools.training.recognition import load_sface
from tools.training.training_stage import TrainingStage, begin_stage, stage_arguments


class Students(nn.Module):
    """All students side by side, so that one teacher pass serves them all."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict({name: build_student(name) for name in STUDENT_NAMES})


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors, moves, recolours, blurs and blends aligned faces (NCHW in [0, 1])."""
    count = images.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    # A blend of two aligned faces is a face of a person that nobody is: more identities.
    weight = uniform(0.3, 0.7) * (uniform(0, 1) < 0.5)
    images = torch.lerp(images, images[torch.randperm(count, generator=generator)], weight)
    angle = uniform(-0.12, 0.12).flatten()
    scale = uniform(0.9, 1.1).flatten() * (1 - 2 * (uniform(0, 1).flatten() < 0.5).float())
    shift = uniform(-0.06, 0.06).flatten(), uniform(-0.06, 0.06).flatten()
    size = scale.abs()
    theta = torch.stack(
        [
            torch.stack([scale * angle.cos(), -size * angle.sin(), shift[0]], dim=1),
            torch.stack([scale * angle.sin(), size * angle.cos(), shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(images, grey.expand_as(images), (uniform(0, 1) < 0.15).float())
    images = (images - 0.5) * uniform(0.75, 1.25) + 0.5 + uniform(-0.12, 0.12)
    blurred = functional.interpolate(
        functional.interpolate(images, scale_factor=0.5, mode="area"),
        size=images.shape[-2:],
        mode="bilinear",
    )
    images = torch.lerp(images, blurred, uniform(0, 1) * (uniform(0, 1) < 0.4))
    noise = torch.randn(images.shape, generator=generator)
    images = images + noise * uniform(0, 0.04) * (uniform(0, 1) < 0.4)
    return images.clamp(0, 1)


@torch.no_grad()
def build_pool(
    crops: NDArray[np.uint8], teacher: IdentityEncoder, size: int, seed: int, path: Path
) -> None:
    """Writes varied crops and the teacher's embeddings of them, asked once for all students."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    images: list[Tensor] = []
    targets: list[Tensor] = []
    while 64 * len(images) < size:
        varied = vary(to_images(crops[random.choice(len(crops), 64)]), generator)
        targets.append(teacher.embed(varied))
        images.append(varied.mul(255).round().byte())
    np.savez(path, images=torch.cat(images).numpy(), targets=torch.cat(targets).numpy())


def main() -> None:
    """Runs the stage from the command line."""
    parser = stage_arguments(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--pool", type=int, default=20000, help="varied crops kept in memory")
    arguments, device = begin_stage(parser)

    table = np.load(arguments.work / "portraits.npz")
    held_out = np.array([is_held_out(str(identity)) for identity in table["identity"]])
    crops = table["recognition_crops"]
    training, unseen = crops[~held_out], to_images(crops[held_out])
    people = table["identity"][held_out]
    teacher = load_sface()
    pool_path = arguments.work / "student_pool.npz"
    if not pool_path.is_file():
        build_pool(training, teacher, arguments.pool, arguments.seed, pool_path)
    pool = np.load(pool_path)
    images_pool, target_pool = torch.from_numpy(pool["images"]), torch.from_numpy(pool["targets"])
    target_pool = target_pool.to(device)
    print(f"pool of {len(images_pool)}, {len(unseen)} unseen", flush=True)

    stage = TrainingStage(
        "students",
        Students().to(device),
        arguments,
        learning_rate=arguments.learning_rate,
        ema_decay=0.99,
    )
    random = np.random.default_rng([arguments.seed, stage.step])
    model: Students = stage.model  # type: ignore[assignment]
    while stage.running():
        model.train()
        rows = torch.from_numpy(random.choice(len(images_pool), arguments.batch_size))
        images = images_pool[rows].to(device).float() / 255
        target = target_pool[rows.to(device)]
        total = torch.zeros((), device=device)
        cosines = {}
        for name, student in model.by_name.items():
            embeds = student(images)
            cosine = (embeds * target).sum(dim=1).mean()
            relation = (embeds @ embeds.T - target @ target.T).square().mean()
            total = total + (1 - cosine) + 2 * relation
            cosines[name] = cosine.detach()
        stage.update(total, **cosines)
        if stage.step % 200 == 0:
            print(
                f"step {stage.step} {report(stage.averaged, unseen, people, teacher)}", flush=True
            )
    stage.save()
    print(f"end, step {stage.step}: {report(stage.averaged, unseen, people, teacher)}", flush=True)


@torch.no_grad()
def report(model: nn.Module, unseen: Tensor, people: np.ndarray, teacher: IdentityEncoder) -> str:
    """Says each student's cosine to SFace, and its same/different-person cosines and AUC."""
    lines = []
    target = teacher.embed(unseen)
    device = next(model.parameters()).device
    same = torch.from_numpy(people[:, None] == people[None, :])
    upper = torch.triu(torch.ones_like(same), diagonal=1)
    names: tuple[StudentName, ...] = get_args(StudentName)
    for name in names:
        embeds = model.by_name[name](unseen.to(device)).cpu()  # type: ignore[index,operator]
        cosines = embeds @ embeds.T
        positive, negative = cosines[same & upper], cosines[~same & upper]
        auc = (positive[:, None] > negative[None, :]).float().mean()
        lines.append(
            f"{name}: to SFace {(embeds * target).sum(1).mean():.3f}, same {positive.mean():.3f}, "
            f"different {negative.mean():.3f}, auc {auc:.4f}"
        )
    return "; ".join(lines)


if __name__ == "__main__":
    main()
