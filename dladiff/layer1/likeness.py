"""L_id: what the checkpoint's autoencoder still shows of a face, as gradients of perturbations.

A model that is fine-tuned on photos learns their latents. So

    L_id(x, d) = 1 - sum_i w_i cos(IE_i(crop_F(D(E(v(x + d))))), e_i)

is raised for each face F in a view v, and for random convex mixtures of the photos' latents:
perturbations made photo by photo average out in what a UNet learns of several [X] (method.md;
FaceLock, arXiv:2411.16832, raises the like against editing). Knows autoencoders, encoders and
views. Takes no steps; needs neither UNet nor text.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dladiff.diffusion.autoencoder import Autoencoder, Latents
from dladiff.encoders.identity_encoders import (
    FACES_PER_PASS,
    IdentityEncoder,
    UnitEmbeddings,
)
from dladiff.faces import estimate_similarity, warp_prefiltered
from dladiff.image_values import Crops, Images
from dladiff.layer1.views import View, ViewKind, draw_view
from dladiff.photo_at_work import NativePhoto, PhotoAtWork
from dladiff.randomness import keyed_generator
from dladiff.results import Cost
from dladiff.transforms import draw_photometric

logger = logging.getLogger(__name__)

MIN_EYE_DISTANCE_SHARE = 0.06
"""Smallest distance of the eyes, as a share of a view's side: smaller faces are nothing that the
model could learn there."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """One face in one decoded row, and whom it must not show."""

    row: int
    landmarks: Float[np.ndarray, "5 2"]
    target: dict[str, UnitEmbeddings]


class _InParts:
    """A network over rows, with the way back to what they came from.

    Where they do not fit into one pass, or nothing shall be kept meanwhile, they go through without
    a graph, and once more when it is known how the result shall change: that keeps one part's graph
    at a time.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        rows: Sequence[Tensor],
        leaves: Sequence[Tensor],
        size: int,
        keeps_graph: bool = True,
    ) -> None:
        """Computes ``result``.

        Args:
            network: Of any number of rows, which do not see each other.
            rows: Each a batch of one.
            leaves: What each row was made of.
            size: Rows a pass.
            keeps_graph: Whether the graph of a single pass is kept until ``gradients``.
        """
        self._network, self._rows, self._leaves, self._size = network, rows, leaves, size
        self._kept: Tensor | None = None
        if keeps_graph and len(rows) <= size:
            self._kept = network(torch.cat(list(rows)))
            self.result = self._kept.detach()
        else:
            with torch.no_grad():
                self.result = torch.cat([network(part) for part in self._parts()])

    def _parts(self) -> Iterator[Tensor]:
        for start in range(0, len(self._rows), self._size):
            yield torch.cat(list(self._rows[start : start + self._size]))

    def gradients(self, upstream: Tensor) -> list[Tensor]:
        """The gradient of each leaf, given that of ``result``."""
        if self._kept is not None:
            return list(torch.autograd.grad(self._kept, self._leaves, upstream))
        found: list[Tensor] = []
        for part in self._parts():
            of_part = slice(len(found), len(found) + len(part))
            result = self._network(part)
            found += torch.autograd.grad(result, self._leaves[of_part], upstream[of_part])
        return found


class AutoencoderLikeness:
    """Gradients of L_id; each autoencoder takes its turn."""

    view_shares = (0.1, 0.1, 0.8)
    """Shares of steps that look at the whole photo, a face square and the aligned face [X]."""
    latent_noise = 0.2
    """Standard deviation of noise on the latents before decoding: about the posterior's."""
    crop_jitter = 0.03
    """How far the face crop moves within the decoded view, in its sides; without any, L_id has no
    gradient at the start."""

    def __init__(
        self,
        autoencoders: Sequence[Autoencoder],
        encoders: Sequence[IdentityEncoder],
        more_encoders: Sequence[IdentityEncoder],
        mixtures_per_step: int,
        handling: bool,
        seed: int,
        micro_batch: int,
        cost: Cost,
    ) -> None:
        """Nothing is computed yet.

        Args:
            autoencoders: At least one.
            encoders: IE_i, each brought to unit gradient and weighted by its ``weight``.
            more_encoders: Further IE_i, which no stop rule asks: students score strangers .2.
            mixtures_per_step: Of the latents of several photos.
            handling: Whether photos are handled before the view.
            seed: Of all draws, together with photo and step; of mixtures, with the step.
            micro_batch: Photos, and rows of the decoder, per pass.
            cost: Where passes are counted.
        """
        self.autoencoders = autoencoders
        self.encoders = encoders
        self.more_encoders = more_encoders
        self.mixtures_per_step = mixtures_per_step
        self.handling = handling
        self.seed = seed
        self.micro_batch = micro_batch
        self.cost = cost
        self._fewer_rows: dict[Autoencoder, int] = {}
        """Images a pass of those that ran out of memory."""

    def gradients(
        self, photos: Sequence[PhotoAtWork], step: int, turn: int | None = None
    ) -> tuple[list[NativePhoto], Float[Tensor, " photos"]]:
        """The gradient of L_id to each photo's perturbation at one step, and what was seen.

        Args:
            photos: Each with at least one face.
            step: Keys the draws.
            turn: Number of the look, by which autoencoders and the faces of a photo take turns.
                None: the step, where all steps are looks.

        Returns:
            The gradients; and per photo the highest cosine that any of ``encoders`` saw of any face
            in its view, on the device, NaN where the view showed no face.
        """
        turn = step if turn is None else turn
        autoencoder = self.autoencoders[turn % len(self.autoencoders)]
        try:
            return self._gradients(photos, step, turn, autoencoder)
        except torch.OutOfMemoryError:
            # Draws are keyed by the step, so that it can be taken once more.
            if not self._halve_rows(autoencoder):
                raise
        return self._gradients(photos, step, turn, autoencoder)

    def _rows(self, autoencoder: Autoencoder) -> int:
        """Images a pass of an autoencoder."""
        return self._fewer_rows.get(autoencoder) or autoencoder.rows(self.micro_batch)

    def _halve_rows(self, autoencoder: Autoencoder) -> bool:
        """Whether fewer images a pass are left to try: once, and never of a single one."""
        rows = self._rows(autoencoder)
        if autoencoder in self._fewer_rows or rows == 1:
            return False
        self._fewer_rows[autoencoder] = rows // 2
        logger.warning(
            "out of memory with %d images a pass of an autoencoder: going on with %d",
            rows,
            rows // 2,
        )
        return True

    def _gradients(
        self, photos: Sequence[PhotoAtWork], step: int, turn: int, autoencoder: Autoencoder
    ) -> tuple[list[NativePhoto], Float[Tensor, " photos"]]:
        generator = keyed_generator(self.seed, "likeness", step)
        kinds: tuple[ViewKind, ...] = ("whole", "face", "template")
        shares = torch.tensor(self.view_shares, dtype=torch.float64)
        kind = kinds[int(torch.multinomial(shares, 1, generator=generator))]
        # Another grouping at each step, so that all photos of a large set meet in mixtures.
        order = torch.randperm(len(photos), generator=generator).tolist()
        found: dict[int, NativePhoto] = {}
        seen: dict[int, Tensor] = {}
        for start in range(0, len(order), self.micro_batch):
            group = order[start : start + self.micro_batch]
            chosen = [photos[index] for index in group]
            gradients, cosines = self._of_group(chosen, autoencoder, kind, step, turn, generator)
            found |= dict(zip(group, gradients, strict=True))
            seen |= dict(zip(group, cosines, strict=True))
        indices = range(len(photos))
        return [found[index] for index in indices], torch.stack([seen[index] for index in indices])

    def _of_group(
        self,
        photos: Sequence[PhotoAtWork],
        autoencoder: Autoencoder,
        kind: ViewKind,
        step: int,
        turn: int,
        generator: torch.Generator,
    ) -> tuple[tuple[NativePhoto, ...], Float[Tensor, " photos"]]:
        # v(x + d): one view of each photo, (k, 3, side, side); z = E(v(x + d)): (k, c, h, w).
        side = autoencoder.resolution
        leaves = [photo.ascent.leaf() for photo in photos]
        seen, shown = [], list[_Shown]()
        for row, (photo, leaf) in enumerate(zip(photos, leaves, strict=True)):
            view, images = self._look(photo, leaf, autoencoder, kind, step, turn)
            seen.append(images)
            shown += _faces_in(view, photo, row, side)
        encoded = _InParts(
            autoencoder.encode,
            seen,
            leaves,
            self._rows(autoencoder),
            keeps_graph=not autoencoder.encodes_twice,
        )
        self.cost.vae_passes += len(seen)
        rows = encoded.result
        weights = torch.zeros(0, len(photos))
        if kind == "template" and len(photos) > 1 and self.mixtures_per_step:
            weights = _dirichlet(self.mixtures_per_step, len(photos), generator)
            # z_m = sum_k w_mk z_k with w_m from the simplex: what a UNet learns of several photos.
            mixed = torch.einsum("mk,kchw->mchw", weights.to(rows), rows)
            rows = torch.cat([rows, mixed])
            shown += self._mixtures(photos, weights, len(photos), autoencoder)
        upstream, cosines = self._latent_gradient(rows, shown, autoencoder, generator)
        # dL/dz_k in all: its own row's, and sum_m w_mk dL/dz_m of the mixtures that it is in.
        single, mixed = upstream[: len(photos)], upstream[len(photos) :]
        single = single + torch.einsum("mk,mchw->kchw", weights.to(rows), mixed)
        return tuple(encoded.gradients(single)), cosines[: len(photos)]

    def _look(
        self,
        photo: PhotoAtWork,
        leaf: NativePhoto,
        autoencoder: Autoencoder,
        kind: ViewKind,
        step: int,
        turn: int,
    ) -> tuple[View, Images]:
        """One handled view of a photo; only the part that it needs is handled."""
        side, faces = autoencoder.resolution, photo.faces
        generator = keyed_generator(self.seed, photo.key, "likeness", step)
        # The person's face in every second look where there are others in the photo.
        person = next(i for i, found in enumerate(photo.identities) if found.is_person)
        index = person if turn % 2 == 0 else (turn // 2) % len(faces)
        template = autoencoder.aligned_template
        view = draw_view(photo, kind, faces[index], template, side, generator)
        if not _faces_in(view, photo, 0, side):
            # Small in the whole photo, beside the part that was drawn, or cut by its edge: such a
            # step would have no gradient. The aligned view always shows its face.
            view = draw_view(photo, "template", faces[index], template, side, generator)
        handling = draw_photometric(self.handling, generator)
        height, width = leaf.shape[-2:]
        left, top, right, bottom = view.extent((height, width), side)
        part = (..., slice(top, bottom), slice(left, right))
        handled = handling.apply(photo.as_served(photo.base[part] + leaf[part]))
        return view, view.within(left, top).look(handled, side)

    def _mixtures(
        self,
        photos: Sequence[PhotoAtWork],
        weights: Float[Tensor, "mixtures photos"],
        first_row: int,
        autoencoder: Autoencoder,
    ) -> list[_Shown]:
        """Mixtures of aligned views show one face at the template's place: the person's."""
        template = autoencoder.aligned_template
        landmarks = template.numpy().astype(np.float64) * autoencoder.resolution
        person = next(identity for identity in photos[0].identities if identity.is_person)
        return [_Shown(first_row + row, landmarks, person.target) for row in range(len(weights))]

    def _latent_gradient(
        self,
        rows: Latents,
        shown: Sequence[_Shown],
        autoencoder: Autoencoder,
        generator: torch.Generator,
    ) -> tuple[Latents, Float[Tensor, " rows"]]:
        """d L_id / d latents of all rows, decoded in micro-batches, and what each row showed."""
        # D(z + sigma n): a checkpoint that samples decodes latents of about this spread.
        noise = torch.randn(rows.shape, generator=generator).to(rows)
        noisy = rows + self.latent_noise * noise
        jitters = torch.rand(len(shown), 3, generator=generator, dtype=torch.float64) * 2 - 1
        parts = []
        cosines = torch.full((len(noisy),), -torch.inf, device=noisy.device)
        for start in range(0, len(noisy), self.micro_batch):
            leaves = [
                row[None].detach().requires_grad_(True)
                for row in noisy[start : start + self.micro_batch]
            ]
            decoded = _InParts(autoencoder.decode, leaves, leaves, self._rows(autoencoder))
            self.cost.vae_passes += len(leaves)
            inside = [
                (face, jitter)
                for face, jitter in zip(shown, jitters.numpy(), strict=True)
                if start <= face.row < start + len(leaves)
            ]
            if not inside:
                parts += [torch.zeros_like(leaf) for leaf in leaves]
                continue
            upstream, of_faces = self._image_gradient(decoded.result, inside, start)
            parts += decoded.gradients(upstream)
            of_rows = torch.tensor([face.row for face, _ in inside], device=noisy.device)
            cosines.scatter_reduce_(0, of_rows, of_faces.to(cosines), "amax")
        return torch.cat(parts), cosines.masked_fill(cosines.isneginf(), torch.nan)

    def _image_gradient(
        self,
        decoded: Images,
        shown: Sequence[tuple[_Shown, Float[np.ndarray, " 3"]]],
        first_row: int,
    ) -> tuple[Images, Float[Tensor, " faces"]]:
        """The encoders' gradients to the decoded images, each at unit length, weighted, summed.

        And the highest cosine that any of ``encoders`` sees of each face.
        """
        total, seen = torch.zeros_like(decoded), list[Tensor]()
        for encoder in (*self.encoders, *self.more_encoders):
            gradient, cosines = self._encoder_gradient(encoder, decoded, shown, first_row)
            total += encoder.weight * gradient / gradient.norm().clamp_min(1e-30)
            if encoder in self.encoders:
                seen.append(cosines)
            self.cost.encoder_passes += len(shown)
        return total, torch.stack(seen).amax(dim=0)

    def _encoder_gradient(
        self,
        encoder: IdentityEncoder,
        decoded: Images,
        shown: Sequence[tuple[_Shown, Float[np.ndarray, " 3"]]],
        first_row: int,
    ) -> tuple[Images, Float[Tensor, " faces"]]:
        """One encoder's gradient and detached cosines, a few faces at a time."""
        leaf = decoded.requires_grad_(True)
        gradients, cosines = list[Tensor](), list[Tensor]()
        for first in range(0, len(shown), FACES_PER_PASS):
            turn = shown[first : first + FACES_PER_PASS]
            crops = [
                self._crop(leaf[face.row - first_row][None], face.landmarks, jitter, encoder)
                for face, jitter in turn
            ]
            targets = torch.cat([face.target[encoder.name] for face, _ in turn])
            of_turn = (encoder.embed(torch.cat(crops)) * targets).sum(dim=1)
            gradients += torch.autograd.grad(-of_turn.sum(), leaf)
            cosines.append(of_turn.detach())
        return torch.stack(gradients).sum(dim=0), torch.cat(cosines)

    def _crop(
        self,
        decoded: Images,
        landmarks: Float[np.ndarray, "5 2"],
        jitter: Float[np.ndarray, " 3"],
        encoder: IdentityEncoder,
    ) -> Crops:
        """The encoder's crop of a face, its place and size jittered."""
        centre = landmarks.mean(axis=0)
        extent = landmarks.max(axis=0) - landmarks.min(axis=0)
        size, shift = 1 + self.crop_jitter * jitter[0], jitter[1:]
        # The five points span a bit under half of a recogniser's crop.
        moved = centre + (landmarks - centre) * size
        moved = moved + self.crop_jitter * shift * 2 * extent
        crop_from_view = estimate_similarity(moved, encoder.template)
        return warp_prefiltered(decoded, np.linalg.inv(crop_from_view), encoder.side)


def _faces_in(view: View, photo: PhotoAtWork, row: int, side: int) -> list[_Shown]:
    """The faces that lie in a view, large enough to be learnt."""
    shown = []
    for face, identity in zip(photo.faces, photo.identities, strict=True):
        landmarks = view.landmarks(face, side)
        is_inside = bool((landmarks >= 0).all() and (landmarks <= side - 1).all())
        eyes = float(np.linalg.norm(landmarks[1] - landmarks[0]))
        if is_inside and eyes >= MIN_EYE_DISTANCE_SHARE * side:
            shown.append(_Shown(row, landmarks, identity.target))
    return shown


def _dirichlet(
    count: int, size: int, generator: torch.Generator
) -> Float[Tensor, "mixtures photos"]:
    """Uniform draws from the simplex, Dirichlet(1, ..., 1), by normalised exponentials."""
    uniform = torch.rand(count, size, generator=generator).clamp_min(1e-9)
    exponential = -uniform.log()
    return exponential / exponential.sum(dim=1, keepdim=True)
