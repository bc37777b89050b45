"""How a diffusion model's user would see a photo: crops, face squares, aligned faces.

Knows geometry: which part of a photo at its own size ends up in the checkpoint's square input.
The perturbation lives on the photo; every loss looks through a view, differentiably.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.autoencoder import FaceTemplate
from dladiff.faces import (
    ATTACKERS_FACE_SCALE,
    Matrix,
    crop_from_photo,
    face_square,
    warp_prefiltered,
)
from dladiff.image_values import Images
from dladiff.photo_at_work import PhotoAtWork
from dladiff.results import Face
from dladiff.transforms import resize_antialiased

_BLOCK = 32
_MARGIN_PX = 8

ViewKind = Literal["whole", "face", "template"]


@dataclass(frozen=True, eq=False)
class View:
    """One way in which a photo becomes a square input; a whole square or an aligned face."""

    kind: ViewKind
    square: tuple[int, int, int] | None = None
    """Left, top and side in pixels of the photo; None for ``template``."""
    photo_from_view: Matrix | None = None
    """Only for ``template``: pixels of the view to pixels of the photo."""
    flip: bool = False

    def look(self, images: Images, side: int) -> Float[Tensor, "batch 3 side side"]:
        """The view of one photo at ``side`` pixels, antialiased and differentiable."""
        if self.square is not None:
            left, top, size = self.square
            seen = images[..., top : top + size, left : left + size]
            seen = resize_antialiased(seen, side, side)
        else:
            assert self.photo_from_view is not None
            seen = warp_prefiltered(images, self.photo_from_view, side)
        return seen.flip(-1) if self.flip else seen

    def landmarks(self, face: Face, side: int) -> Float[np.ndarray, "5 2"]:
        """Where a face's landmarks lie in the view at ``side`` pixels, in reading order.

        A mirrored view swaps the eyes and the corners of the mouth: they are left and right as
        seen.
        """
        points = face.landmarks.astype(np.float64)
        if self.square is not None:
            left, top, size = self.square
            points = (points - (left, top) + 0.5) * (side / size) - 0.5
        else:
            assert self.photo_from_view is not None
            view_from_photo = np.linalg.inv(self.photo_from_view)
            points = points @ view_from_photo[:2, :2].T + view_from_photo[:2, 2]
        if self.flip:
            points = points * (-1, 1) + (side - 1, 0)
            points = points[[1, 0, 2, 4, 3]]
        return points

    def extent(self, size: tuple[int, int], side: int) -> tuple[int, int, int, int]:
        """The part of a photo of ``size`` (height, width) that the view needs.

        Left, top, right, bottom in whole blocks of 32 px, so that JPEG of the part, and of its
        half-size copy, is JPEG of the photo, with a margin for blur and resizing.
        """
        height, width = size
        if self.square is not None:
            left, top, edge = self.square
            corners = np.array([[left, top], [left + edge, top + edge]], dtype=np.float64)
        else:
            assert self.photo_from_view is not None
            ends = np.array([[x, y, 1] for x in (0, side - 1) for y in (0, side - 1)])
            corners = (ends @ self.photo_from_view.T)[:, :2]
        low = np.floor((corners.min(axis=0) - _MARGIN_PX) / _BLOCK).astype(int) * _BLOCK
        high = np.ceil((corners.max(axis=0) + _MARGIN_PX) / _BLOCK).astype(int) * _BLOCK
        (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, (width, height))
        return int(left), int(top), int(right), int(bottom)

    def within(self, left: int, top: int) -> "View":
        """The same view of a part of the photo that begins at ``(left, top)``."""
        if self.square is not None:
            x, y, size = self.square
            return replace(self, square=(x - left, y - top, size))
        assert self.photo_from_view is not None
        shift = np.array([[1.0, 0, -left], [0, 1.0, -top], [0, 0, 1.0]])
        return replace(self, photo_from_view=shift @ self.photo_from_view)


def draw_view(
    photo: PhotoAtWork,
    kind: ViewKind,
    face: Face,
    template: FaceTemplate,
    resolution: int,
    generator: torch.Generator,
) -> View:
    """Draws one view of a kind with its jitter; half of those that are not aligned are mirrored."""
    if kind == "template":
        return _template(face, template, resolution, generator)
    view = _whole(photo, generator) if kind == "whole" else _face(photo, face, generator)
    return replace(view, flip=bool(torch.rand((), generator=generator) < 0.5))


def training_views(
    photo: PhotoAtWork,
    count: int,
    shares: tuple[float, float, float],
    template: FaceTemplate | None,
    resolution: int,
    generator: torch.Generator,
) -> tuple[View, ...]:
    """The fixed views of one photo through which a perturbation is made.

    Args:
        photo: With its faces; without any, all views are of the whole photo.
        count: How many.
        shares: Of whole, face and template views; what a photo cannot have goes to the others.
        template: Where a checkpoint made for aligned faces expects the landmarks, if it does.
        resolution: Side of the checkpoint's input.
        generator: Draws crops, scales and flips.
    """
    whole, face, aligned = shares
    has_face = bool(photo.faces)
    weights = (whole, face * has_face, aligned * (has_face and template is not None))
    kinds = _allot(weights if sum(weights) > 0 else (1.0, 0.0, 0.0), count)
    views = []
    for number, kind in enumerate(kinds):
        is_first = kind not in kinds[:number]
        seen = photo.faces[number % len(photo.faces)] if has_face and not is_first else None
        if kind == "whole":
            view = _whole(photo, None if is_first else generator)
        elif kind == "face":
            view = _face(photo, seen or photo.faces[0], None if is_first else generator)
        else:
            assert template is not None
            jitter = None if is_first else generator
            view = _template(seen or photo.faces[0], template, resolution, jitter)
        flip = bool(torch.rand((), generator=generator) < 0.5) and not is_first
        views.append(replace(view, flip=flip))
    return tuple(views)


def attackers_views(
    photo: PhotoAtWork, template: FaceTemplate | None, resolution: int
) -> tuple[View, ...]:
    """The views through which success is measured: what an attacker would train on.

    The aligned face where the checkpoint is made for it, else the whole photo and the square of
    1.6 times the face box; see "How protection is measured".
    """
    if photo.faces and template is not None:
        return (_template(photo.faces[0], template, resolution, None),)
    whole = _whole(photo, None)
    return (whole, _face(photo, photo.faces[0], None)) if photo.faces else (whole,)


def _allot(weights: tuple[float, float, float], count: int) -> list[ViewKind]:
    """Shares out ``count`` views, largest remainders first, never at random."""
    kinds: tuple[ViewKind, ...] = ("template", "face", "whole")
    exact = np.array(weights[::-1]) / sum(weights) * count
    counts = np.floor(exact + 1e-9).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: count - counts.sum()]:
        counts[index] += 1
    return [kind for kind, times in zip(kinds, counts, strict=True) for _ in range(times)]


def _whole(photo: PhotoAtWork, generator: torch.Generator | None) -> View:
    """The largest square: in the middle, or anywhere along the long side."""
    height, width = photo.clean.shape[-2:]
    side = min(height, width)
    share = 0.5 if generator is None else float(torch.rand((), generator=generator))
    return View(
        "whole", square=(round((width - side) * share), round((height - side) * share), side)
    )


def _face(photo: PhotoAtWork, face: Face, generator: torch.Generator | None) -> View:
    """A square of 1.4 to 3 times the face box, moved inside the photo where it reaches over."""
    height, width = photo.clean.shape[-2:]
    scale = ATTACKERS_FACE_SCALE
    if generator is not None:
        scale = 1.4 + 1.6 * float(torch.rand((), generator=generator))
    left, top, right, _ = face_square(face, scale)
    side = min(max(round(right - left), 16), height, width)
    left = (left + right - side) / 2
    return View(
        "face",
        square=(
            round(min(max(left, 0), width - side)),
            round(min(max(top, 0), height - side)),
            side,
        ),
    )


def _template(
    face: Face, template: FaceTemplate, resolution: int, generator: torch.Generator | None
) -> View:
    """The face as the checkpoint's own training crops show it; jittered by a few percent.

    An attacker finds the landmarks on the protected file, hence never exactly ours.
    """
    points = template.numpy().astype(np.float64) * resolution
    if generator is not None:
        draw: Float[Tensor, " 3"] = torch.rand(3, generator=generator, dtype=torch.float64) - 0.5
        size, shift_x, shift_y = (draw * torch.tensor([0.1, 0.04, 0.04])).tolist()
        centre = points.mean(axis=0)
        shift = np.array([shift_x, shift_y]) * resolution
        points = (points - centre) * (1 + size) + centre + shift
    return View("template", photo_from_view=np.linalg.inv(crop_from_photo(face, points)))
