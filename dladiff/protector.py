"""The library's door: ``Protector("balanced", device="cuda")(photos)``.

Loads the models once and protects the photos of one person at each call. Knows no cluster and
writes no files.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from dladiff.config import MethodSettings, PresetName, preset_settings
from dladiff.diffusion.autoencoder import Autoencoder
from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.image_values import Image
from dladiff.models import ProtectionModels, load_models
from dladiff.own_losses import OwnLoss
from dladiff.photo_inputs import (
    OrderedPhotos,
    PhotoInput,
    batch_of,
    photo_of,
    photos_of_tensor,
)
from dladiff.protect import protect_photo_set
from dladiff.results import OnProgress, SetResult
from dladiff.weight_files import user_cache


class Protector:
    """Protects photos of one person a call; models are loaded once.

    A file read by its path gets the pixels that ``dladiff protect`` writes, with the same settings
    on the same kind of machine: both key a photo's noise by the sha256 of its file. An array, a
    Pillow image or a tensor has no file and is keyed by its size and pixels: equal pixels give
    equal bytes, but others than the file gives that they were read from. ``Photo(key, image)`` says
    the key itself.
    """

    def __init__(
        self,
        method: PresetName | MethodSettings = "balanced",
        *,
        device: torch.device | str = "cpu",
        recognisers: Sequence[IdentityEncoder] = (),
        autoencoders: Sequence[Autoencoder] = (),
        losses: Sequence[OwnLoss] = (),
        cache_dir: Path | None = None,
    ) -> None:
        """Loads and checks all models.

        Args:
            method: A preset by its name, also one of ``dladiff.methods.NAMES`` (``"mist"``), or
                settings of one's own.
            device: Where the models compute, e.g. ``"cuda"``.
            recognisers: More identity encoders beside the method's own: in the losses, or with
                ``held_out`` only measuring. Their networks are frozen and moved to ``device``.
            autoencoders: More autoencoders that shall not show the face, in turns with the
                method's own; frozen and moved likewise. They need L_id.
            losses: More that shall rise, beside L_id, on photos with a face.
            cache_dir: Where converted weights are kept; None: the user's cache folder, as
                the command has it.

        Raises:
            ValueError: If nothing of the method would read what was given, or a name is taken.
            ModelError: If weights are missing or damaged.
        """
        self.settings = preset_settings(method) if isinstance(method, str) else method
        self._require_readers(recognisers, autoencoders, losses)
        models = load_models(self.settings, device, cache_dir or user_cache())
        self.models: ProtectionModels = replace(
            models,
            encoders=[*models.encoders, *(_placed(one, models.device) for one in recognisers)],
            autoencoders=[*models.autoencoders, *(_at(one, models.device) for one in autoencoders)],
            losses=tuple(losses),
        )

    @overload
    def __call__(self, images: Tensor, references: Sequence[PhotoInput] = ()) -> Tensor: ...
    @overload
    def __call__(
        self,
        images: PhotoInput | Sequence[PhotoInput],
        references: Sequence[PhotoInput] = (),
    ) -> list[Image]: ...

    def __call__(
        self,
        images: Tensor | PhotoInput | Sequence[PhotoInput],
        references: Sequence[PhotoInput] = (),
    ) -> Tensor | list[Image]:
        """Protects photos of one person.

        Args:
            images: Float tensor (N, 3, height, width) in [0, 1], rounded to 8 bits; or photos of
                any sizes: paths, Pillow images or RGB uint8 arrays (height, width, 3).
            references: More clean photos of the person, which the preset ``paper`` alone reads.

        Returns:
            For a tensor one of the same shape, dtype and device, its values multiples of 1/255;
            else RGB uint8 arrays. A photo that could not be protected (no face where only layer 2
            is on) comes back as it was, with a warning; ``protect`` tells more.

        Raises:
            GradientError: If an image gradient was zero or not finite.
            ValueError: If references are given to a method that reads none.
        """
        if isinstance(images, Tensor):
            photos = photos_of_tensor(images)
        else:
            photos = [photo_of(one) for one in _several(images)]
        found = self.protect(photos, references)
        unprotected = [i for i, one in enumerate(found.photos) if one.image is None]
        if unprotected:
            reasons = sorted({str(found.photos[i].reason) for i in unprotected})
            warnings.warn(
                f"not protected, returned as given: photos {unprotected} ({', '.join(reasons)})",
                stacklevel=2,
            )
        protected = [
            photo.image if result.image is None else result.image
            for photo, result in zip(photos, found.photos, strict=True)
        ]
        return batch_of(protected, images) if isinstance(images, Tensor) else protected

    def protect(
        self,
        photos: PhotoInput | Sequence[PhotoInput],
        references: Sequence[PhotoInput] = (),
        on_progress: OnProgress | None = None,
    ) -> SetResult:
        """The same with everything that was measured: statuses, faces, likeness, cost.

        Args:
            photos: As of a call.
            references: As of a call.
            on_progress: Called between steps with a stage name and the fraction done in [0, 1].

        Returns:
            One ``PhotoResult`` per photo in the order given.
        """
        if references and not self.settings.num_references:
            raise ValueError(f"{self.settings.preset!r} reads no references: give none")
        given = OrderedPhotos.of([photo_of(one) for one in _several(photos)])
        others = OrderedPhotos.of([photo_of(one) for one in references])
        if not given.photos:
            return SetResult(photos=[])
        with _threads(self.settings.threads):
            found = protect_photo_set(
                given.photos, others.photos, self.models, self.settings, on_progress
            )
        return replace(found, photos=given.as_given(found.photos))

    def _require_readers(
        self,
        recognisers: Sequence[IdentityEncoder],
        autoencoders: Sequence[Autoencoder],
        losses: Sequence[OwnLoss],
    ) -> None:
        """Refuses what no loss would read, before any model is loaded."""
        if (autoencoders or losses) and not self.settings.likeness_leads:
            raise ValueError(
                f"own autoencoders and losses work within L_id, which {self.settings.preset!r} "
                "lacks: take 'balanced', 'discreet', 'strong' or 'fast'"
            )
        other = self.settings.other
        if other is not None and not all(one.held_out for one in recognisers):
            raise ValueError(
                f"{other!r} reads no recogniser of yours in its loss: give it held_out=True, so "
                "that it only measures"
            )
        names = [one.name for one in self.settings.encoders]
        names += [one.name for one in recognisers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"recognisers need names of their own, taken: {', '.join(twice)}")


def _several(photos: PhotoInput | Sequence[PhotoInput]) -> Sequence[PhotoInput]:
    if isinstance(photos, list | tuple):
        return photos
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        return list(photos)
    return [photos]  # type: ignore[list-item]  # a sequence of another type is refused as a photo


def _placed(encoder: IdentityEncoder, device: torch.device) -> IdentityEncoder:
    network = encoder.network.eval().requires_grad_(False).to(device)
    return replace(encoder, network=network)


def _at(autoencoder: Autoencoder, device: torch.device) -> Autoencoder:
    autoencoder.vae.eval().requires_grad_(False).to(device)
    return autoencoder


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Computes with so many CPU threads, a part of the method since sums round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
