"""Layer 2: a perturbation per face that moves its identity embedding away from the clean one.

Section 3 of the paper (arXiv:2511.19910), over an ensemble of encoders and through random warps
and handling. Knows faces, encoders and the budget; knows no diffusion model and no files.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.ascent_loop import Step, ascend
from dladiff.config import MethodSettings
from dladiff.encoders.identity_encoders import IdentityEncoder, UnitEmbeddings
from dladiff.image_values import Crops, Images, Perturbation, levels_to_unit
from dladiff.layer2.face_views import OUR_WARPS, PAPERS_WARPS, FaceView, Warps, draw_view
from dladiff.methods.paper.canvas import FaceCanvas, crop_canvas, crop_of, image_canvas, still_view
from dladiff.photo_at_work import PhotoAtWork
from dladiff.placement import FacePerturbation
from dladiff.projected_gradient import GradientAscent
from dladiff.randomness import keyed_generator

MOMENTUM = 0.9
"""Decay of the sum of earlier gradients; none on the paper's crop."""


@dataclass(eq=False)
class FaceAttack:
    """The running state of one face's projected gradient."""

    key: str
    """The photo's."""
    index: int
    """Number of the face in its photo."""
    canvas: FaceCanvas
    clean_embeds: dict[str, UnitEmbeddings]
    ascent: GradientAscent
    """On the canvas' lattice, layer 1's part included in its ``clean``."""
    largest_cosine: float = 1.0
    stopped: bool = False


def defend_identity(
    photos: Sequence[PhotoAtWork],
    encoders: Sequence[IdentityEncoder],
    method: MethodSettings,
    device: torch.device | str = "cpu",
    on_progress: Callable[[float], None] | None = None,
) -> int:
    """Raises ``1 - sum_i w_i cos(IE_i(crop_M'(x + delta)), IE_i(crop_M(x)))`` within eta_zs.

    Args:
        photos: They get their faces' perturbations, mask extents and stop reasons; on one that
            has a perturbation already this builds. A photo without a face gets nothing.
        encoders: Those marked ``held_out`` are left out here.
        method: Canvas, budget, steps and handling. Every draw is keyed by its seed, the photo, the
            face and the step, so that neither the company of other photos nor ``micro_batch``
            changes what is drawn.
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
    loss = _EnsembleLoss(white_boxes, method)
    for photo in photos:
        photo.stop_reason = "stop_cosine"
    for first in range(0, len(whose), method.micro_batch):
        # All steps of a few faces, then the next: only these few hold their pixels in memory.
        batch = whose[first : first + method.micro_batch]
        attacks = [
            begin_attack(photos[index], face, white_boxes, method, device) for index, face in batch
        ]
        ascend(attacks, _steps(attacks, loss, (first, len(whose)), on_progress), "layer 2")
        for (index, _), attack in zip(batch, attacks, strict=True):
            _keep(photos[index], attack)
    return loss.num_passes


def _steps(
    attacks: Sequence[FaceAttack],
    loss: "_EnsembleLoss",
    place: tuple[int, int],
    on_progress: Callable[[float], None] | None,
) -> Iterator[Step[FaceAttack]]:
    """The same step again and again, until every face has reached the stop rule."""
    loop, (first, total) = loss.method.loop, place
    momentum = 0.0 if loss.method.layers.crop else MOMENTUM
    for step in range(loop.num_steps):
        if all(attack.stopped for attack in attacks):
            return
        yield Step(partial(loss.gradients, step=step), loop.step_size_levels, momentum)
        if on_progress is not None:
            on_progress((first + len(attacks) * (step + 1) / loop.num_steps) / total)


@dataclass
class _EnsembleLoss:
    """The loss of all encoders, for faces that have not reached the stop rule."""

    encoders: Sequence[IdentityEncoder]
    method: MethodSettings
    num_passes: int = 0
    """Crops that went forward and backward through an encoder."""

    def gradients(self, attacks: Sequence[FaceAttack], step: int) -> list[Perturbation | None]:
        """The gradient of each face; None of one that has stopped, or stops now."""
        active = [attack for attack in attacks if not attack.stopped]
        found = ensemble_gradients(active, self.encoders, self.method, step)
        self.num_passes += len(active) * len(self.encoders)
        stop = self.method.loop.stop_cosine
        for attack in active:
            attack.stopped = stop is not None and attack.largest_cosine < stop
        by_attack = dict(zip(map(id, active), found, strict=True))
        return [None if one.stopped else by_attack[id(one)] for one in attacks]


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
    method: MethodSettings,
    device: torch.device | str,
) -> FaceAttack:
    """The face's canvas, its clean embeddings and a random start (delta = 0 has no gradient)."""
    make_canvas = crop_canvas
    if not method.layers.crop:
        make_canvas = partial(image_canvas, box_scale=method.budget.box_scale)
    face, clean = photo.found[face_index], photo.photo.image
    clean_canvas = make_canvas(clean, None, face, device)
    canvas = clean_canvas
    if photo.has_begun:
        canvas = make_canvas(clean, photo.native_perturbation(), face, device)
    nothing = torch.zeros_like(canvas.base)
    with torch.no_grad():
        clean_embeds = {
            encoder.name: encoder.embed(still_view(clean_canvas, nothing, encoder))
            for encoder in encoders
        }
    step_size = levels_to_unit(method.loop.step_size_levels)
    epsilon = levels_to_unit(method.budget.zero_shot_levels)
    generator = keyed_generator(method.seed, photo.key, "layer2", face_index, "start")
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
    method: MethodSettings,
    step: int,
) -> list[Perturbation]:
    """The gradient of the loss to each face's perturbation, through one drawn view.

    Each encoder's gradient is brought to unit length at the crop, so that none drowns the
    others; one backward pass then carries their weighted sum through the warps.
    """
    perturbations = [attack.ascent.leaf() for attack in attacks]
    warps = PAPERS_WARPS if method.layers.crop else OUR_WARPS
    views = [_view(attack, warps, method, step) for attack in attacks]
    all_crops: list[Crops] = []
    all_gradients: list[Crops] = []
    all_cosines: list[Float[Tensor, " faces"]] = []
    for group in _by_geometry(encoders):
        crops = torch.cat(
            [
                crop_of(view, attack.canvas, perturbation, group[0])
                for attack, perturbation, view in zip(attacks, perturbations, views, strict=True)
            ]
        )
        gradients = torch.zeros_like(crops)
        for encoder in group:
            targets = torch.cat([attack.clean_embeds[encoder.name] for attack in attacks])
            gradient, cosines = _away_from(encoder, crops.detach(), targets)
            gradients += encoder.weight * gradient
            all_cosines.append(cosines)
        all_crops.append(crops)
        all_gradients.append(gradients)
    if method.loop.stop_cosine is not None:
        largest = torch.stack(all_cosines).amax(dim=0).tolist()
        for attack, cosine in zip(attacks, largest, strict=True):
            attack.largest_cosine = cosine
    # The gradient of this sum to the crops is `all_gradients`, to the bit. Given those themselves,
    # torch compares shapes by sympy, whose import costs over a second.
    pairs = zip(all_crops, all_gradients, strict=True)
    pulled_back = torch.stack([(crops * gradient).sum() for crops, gradient in pairs]).sum()
    return list(torch.autograd.grad(pulled_back, perturbations))


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


def _view(attack: FaceAttack, warps: Warps, method: MethodSettings, step: int) -> FaceView:
    """How a face is seen at one step; the draw depends on nothing else."""
    generator = keyed_generator(method.seed, attack.key, "layer2", attack.index, step, 0)
    return draw_view(warps, method.handling, generator)
