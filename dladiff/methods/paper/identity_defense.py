"""Layer 2: a perturbation per face that moves its identity embedding away from the clean one.

Section 3 of the paper (arXiv:2511.19910), over an ensemble of encoders and through random warps
and handling. Knows faces, encoders and the budget; knows no diffusion model and no files.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.config import Layer2Settings
from dladiff.encoders.identity_encoders import IdentityEncoder, UnitEmbeddings
from dladiff.image_values import Crops, Images, Perturbation, levels_to_unit
from dladiff.layer2.face_views import FaceView, draw_view
from dladiff.methods.paper.canvas import FaceCanvas, crop_canvas, crop_of, image_canvas, still_view
from dladiff.photo_at_work import PhotoAtWork
from dladiff.placement import FacePerturbation
from dladiff.projected_gradient import GradientAscent
from dladiff.randomness import keyed_generator


@dataclass(eq=False)
class FaceAttack:
    """The running state of one face's projected gradient."""

    key: str
    """The photo's."""
    index: int
    """Of the face in its photo."""
    canvas: FaceCanvas
    clean_embeds: dict[str, UnitEmbeddings]
    ascent: GradientAscent
    """On the canvas' lattice, layer 1's part included in its ``clean``."""
    largest_cosine: float = 1.0
    stopped: bool = False


def defend_identity(
    photos: Sequence[PhotoAtWork],
    encoders: Sequence[IdentityEncoder],
    settings: Layer2Settings,
    *,
    seed: int,
    micro_batch: int,
    device: torch.device | str = "cpu",
    on_progress: Callable[[float], None] | None = None,
) -> int:
    """Raises ``1 - sum_i w_i cos(IE_i(crop_M'(x + delta)), IE_i(crop_M(x)))`` within eta_zs.

    Args:
        photos: They get their faces' perturbations, mask extents and stop reasons; on one that
            has a perturbation already this builds. A photo without a face gets nothing.
        encoders: Those marked ``held_out`` are left out here.
        settings: Mode, budget, steps and augmentation.
        seed: Every draw is keyed by it, the photo, the face and the step, so that neither the
            company of other photos nor ``micro_batch`` changes what is drawn.
        micro_batch: Crops per forward pass.
        device: Where the encoders live.
        on_progress: Called after each step with the fraction done.

    Returns:
        Crops that went forward and backward through an encoder.

    Raises:
        GradientError: If the gradient of a face was zero or not finite.
    """
    white_boxes = [encoder for encoder in encoders if not encoder.held_out]
    whose = [
        (index, face) for index, photo in enumerate(photos) for face in range(len(photo.found))
    ]
    encoder_passes = 0
    for photo in photos:
        photo.stop_reason = "stop_cosine"
    faces_at_once = max(1, micro_batch // settings.crops_per_step)
    for first in range(0, len(whose), faces_at_once):
        # All steps of a few faces, then the next: only these few hold their pixels in memory.
        batch = whose[first : first + faces_at_once]
        attacks = [
            begin_attack(photos[index], face, white_boxes, settings, seed, device)
            for index, face in batch
        ]
        for step in range(settings.num_steps):
            active = [attack for attack in attacks if not attack.stopped]
            if not active:
                break
            gradients = ensemble_gradients(active, white_boxes, settings, seed, step)
            encoder_passes += len(active) * settings.crops_per_step * len(white_boxes)
            for attack, gradient in zip(active, gradients, strict=True):
                _step(attack, gradient, settings)
            if on_progress is not None:
                fraction = (step + 1) / settings.num_steps
                on_progress((first + len(batch) * fraction) / len(whose))
        for (index, _), attack in zip(batch, attacks, strict=True):
            attack.ascent.require_live(f"layer 2, photo {photos[index].key}")
            _keep(photos[index], attack)
    return encoder_passes


def _keep(photo: PhotoAtWork, attack: FaceAttack) -> None:
    """Hands a finished face over to its photo."""
    placement = attack.canvas.placement
    photo.found[attack.index] = replace(photo.found[attack.index], mask_extent=placement.extent)
    photo.added.append(FacePerturbation(attack.ascent.perturbation, placement))
    if not attack.stopped:
        photo.stop_reason = "num_steps"


def begin_attack(
    photo: PhotoAtWork,
    face_index: int,
    encoders: Sequence[IdentityEncoder],
    settings: Layer2Settings,
    seed: int,
    device: torch.device | str,
) -> FaceAttack:
    """The face's canvas, its clean embeddings and a random start (delta = 0 has no gradient)."""
    make_canvas = image_canvas if settings.mode == "image" else crop_canvas
    face, clean = photo.found[face_index], photo.photo.image
    clean_canvas = make_canvas(clean, None, face, settings, device)
    canvas = clean_canvas
    if photo.has_begun:
        canvas = make_canvas(clean, photo.native_perturbation(), face, settings, device)
    nothing = torch.zeros_like(canvas.base)
    with torch.no_grad():
        clean_embeds = {
            encoder.name: encoder.embed(still_view(clean_canvas, nothing, encoder))
            for encoder in encoders
        }
    step_size = levels_to_unit(settings.step_size_levels)
    epsilon = levels_to_unit(settings.epsilon_levels)
    generator = keyed_generator(seed, photo.key, "layer2", face_index, "start")
    return FaceAttack(
        key=photo.key,
        index=face_index,
        canvas=canvas,
        clean_embeds=clean_embeds,
        ascent=GradientAscent.begin(canvas.base, epsilon, min(step_size, epsilon), generator),
    )


def ensemble_gradients(
    attacks: Sequence[FaceAttack],
    encoders: Sequence[IdentityEncoder],
    settings: Layer2Settings,
    seed: int,
    step: int,
) -> list[Perturbation]:
    """The gradient of the loss to each face's perturbation, summed over its crops.

    Each encoder's gradient is brought to unit length at the crop, so that none drowns the
    others; one backward pass then carries their weighted sum through the warps.
    """
    perturbations = [attack.ascent.leaf() for attack in attacks]
    views = [_views(attack, settings, seed, step) for attack in attacks]
    all_crops: list[Crops] = []
    all_gradients: list[Crops] = []
    all_cosines: list[Float[Tensor, "faces crops"]] = []
    for group in _by_geometry(encoders):
        crops = torch.cat(
            [
                crop_of(view, attack.canvas, perturbation, group[0])
                for attack, perturbation, drawn in zip(attacks, perturbations, views, strict=True)
                for view in drawn
            ]
        )
        gradients = torch.zeros_like(crops)
        for encoder in group:
            targets = torch.cat([attack.clean_embeds[encoder.name] for attack in attacks])
            targets = targets.repeat_interleave(settings.crops_per_step, dim=0)
            gradient, cosines = _away_from(encoder, crops.detach(), targets)
            gradients += encoder.weight * gradient
            all_cosines.append(cosines.reshape(len(attacks), -1))
        all_crops.append(crops)
        all_gradients.append(gradients)
    if settings.stop_cosine is not None:
        largest = torch.cat(all_cosines, dim=1).amax(dim=1).tolist()
        for attack, cosine in zip(attacks, largest, strict=True):
            attack.largest_cosine = cosine
    return list(torch.autograd.grad(all_crops, perturbations, all_gradients))


def _by_geometry(encoders: Sequence[IdentityEncoder]) -> list[list[IdentityEncoder]]:
    """Encoders that can read the same crops, together."""
    groups: dict[tuple[int, bytes], list[IdentityEncoder]] = defaultdict(list)
    for encoder in encoders:
        groups[encoder.side, encoder.template.tobytes()].append(encoder)
    return list(groups.values())


def _away_from(
    encoder: IdentityEncoder, crops: Images, targets: UnitEmbeddings
) -> tuple[Images, Float[Tensor, " batch"]]:
    """The gradient of ``1 - cos`` to each crop, at unit length, and the cosines."""
    crops = crops.requires_grad_(True)
    cosines = (encoder.embed(crops) * targets).sum(dim=1)
    (gradient,) = torch.autograd.grad(-cosines.sum(), crops)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, 1, 1, 1)
    return gradient / length, cosines.detach()


def _views(attack: FaceAttack, settings: Layer2Settings, seed: int, step: int) -> list[FaceView]:
    """The crops of a face at one step; their draws depend on nothing else."""
    return [
        draw_view(
            settings,
            keyed_generator(seed, attack.key, "layer2", attack.index, step, crop),
        )
        for crop in range(settings.crops_per_step)
    ]


def _step(attack: FaceAttack, gradient: Perturbation, settings: Layer2Settings) -> None:
    """One signed step with momentum, unless the face has reached its stop rule."""
    if settings.stop_cosine is not None and attack.largest_cosine < settings.stop_cosine:
        attack.stopped = True
        return
    attack.ascent.step(gradient, levels_to_unit(settings.step_size_levels), settings.momentum)
