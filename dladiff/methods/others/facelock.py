"""FaceLock: the autoencoder's reconstruction shall not show the person, to one recogniser."""

import numpy as np
import torch
from torch import Tensor

from dladiff.encoders.identity_encoders import UnitEmbeddings
from dladiff.faces import crop_from_photo, estimate_similarity, warp, warp_prefiltered
from dladiff.image_values import Images
from dladiff.methods.others.baseline import Baseline
from dladiff.methods.others.person import Person
from dladiff.methods.photo_latents import ViewedPhoto
from dladiff.photo_at_work import NativePhoto, PhotoAtWork


class FaceLock(Baseline):
    """Raises ``-cos(IE(D(E(x + d))), IE(x)) + LPIPS(D(E(x + d)), x) + 0.2 mse(E(x + d), E(x))``.

    Wang et al. 2024, "Edit Away and My Face Will not Stay" (arXiv:2411.16832), Algorithm 1. Weights
    and order are those of the authors' code: the distance of latents from the start, LPIPS after
    a quarter, the recogniser after 35 %, steps that fall linearly to a hundredth. Recogniser: the
    package's SFace; there it is one of ArcFace's family too.

    Photos without a face have the other two terms only.
    """

    latent_weight = 0.2
    lpips_from, identity_from = 0.25, 0.35

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        if person.identity_encoder is None or person.lpips is None:
            raise ValueError("FaceLock needs an identity encoder and LPIPS")
        self.recogniser, self.lpips = person.identity_encoder, person.lpips
        self.identities = [self._clean_identity(i.photo) for i in person.instances]
        self.clean_views = [self._look(i, i.photo.clean) for i in person.instances]

    def step_scale(self, share: float) -> float:
        return 1 - 0.99 * share

    def gradients(self, step: int) -> list[NativePhoto]:
        gradients: list[NativePhoto] = []
        for number, instance in enumerate(self.person.instances):
            leaf = instance.photo.ascent.leaf()
            loss = self.loss(number, instance.photo.base + leaf, self.person.share_taken)
            gradients += torch.autograd.grad(loss, leaf)
        return gradients

    def loss(self, number: int, images: NativePhoto, share: float) -> Tensor:
        """What is raised for one photo after ``share`` of the steps; a scalar."""
        instance, diffusion = self.person.instances[number], self.person.diffusion
        latents = diffusion.encode(self._look(instance, images))
        loss: Tensor = self.latent_weight * (latents - instance.clean_latents).square().mean()
        self.person.cost.vae_passes += 1
        if share <= self.lpips_from:
            return loss
        shown = diffusion.decode(latents)
        self.person.cost.vae_passes += 1
        loss = loss + self.lpips(shown, self.clean_views[number]).sum()
        identity = self.identities[number]
        if share >= self.identity_from and identity is not None:
            loss = loss - (self._embed(instance, shown) * identity).sum()
        return loss

    def _look(self, instance: ViewedPhoto, images: NativePhoto) -> Images:
        return instance.views[0].look(images, self.person.diffusion.resolution)

    def _embed(self, instance: ViewedPhoto, shown: Images) -> UnitEmbeddings:
        """The face as the reconstruction shows it."""
        side, recogniser = self.person.diffusion.resolution, self.recogniser
        landmarks = instance.views[0].landmarks(instance.photo.faces[0], side)
        view_from_crop = np.linalg.inv(estimate_similarity(landmarks, recogniser.template))
        self.person.cost.encoder_passes += 1
        return recogniser.embed(warp_prefiltered(shown, view_from_crop, recogniser.side))

    @torch.no_grad()
    def _clean_identity(self, photo: PhotoAtWork) -> UnitEmbeddings | None:
        """The embedding of the photo's largest face, which is the one in its view."""
        if not photo.faces:
            return None
        photo_from_crop = np.linalg.inv(crop_from_photo(photo.faces[0], self.recogniser.template))
        self.person.cost.encoder_passes += 1
        return self.recogniser.embed(warp(photo.clean, photo_from_crop, self.recogniser.side))
