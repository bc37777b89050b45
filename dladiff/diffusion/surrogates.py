"""The surrogates of layer 1: sets of UNet weights that all run on one base UNet.

By LoRA: adapters (peft) on the checkpoint's UNet. By full weights: tensors that stand in for the
UNet's own during a forward. Either way the checkpoint's weights are never written, a surrogate
requires gradients only inside ``trainable``, and none outlives ``open_surrogates``: they were
made of a person's photos.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from dladiff.config import SurrogateSettings
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel, Timesteps
from dladiff.randomness import keyed_generator

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Projections of all attention layers, as DreamBooth LoRA scripts adapt them."""


class Surrogate(ABC):
    """theta: weights of the checkpoint's UNet that photos of one person may change."""

    def __init__(self, diffusion: DiffusionModel) -> None:
        self.diffusion = diffusion

    @abstractmethod
    def predict(self, noisy_latents: Latents, timesteps: Timesteps) -> Latents:
        """Predicts noise (or velocity) under the instance prompt."""

    @abstractmethod
    def weights(self) -> list[Tensor]:
        """The tensors that fine-tuning changes, always in the same order."""

    @abstractmethod
    def reset(self) -> None:
        """Returns to the checkpoint, theta_pre."""

    @contextmanager
    def trainable(self) -> Iterator[list[Tensor]]:
        """Lets the weights require gradients for a while; outside everything is frozen."""
        weights = self.weights()
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield weights
        finally:
            for weight in weights:
                weight.requires_grad_(False)
                weight.grad = None


class LoraSurrogate(Surrogate):
    """One adapter of several on the same UNet."""

    def __init__(self, diffusion: DiffusionModel, adapters: "_Adapters", name: str, seed: int):
        super().__init__(diffusion)
        self.adapters = adapters
        self.name = name
        self.seed = seed
        self.reset()

    def predict(self, noisy_latents: Latents, timesteps: Timesteps) -> Latents:
        self.adapters.activate([self.name])
        return self.diffusion.predict(noisy_latents, timesteps)

    def weights(self) -> list[Tensor]:
        layers = self.adapters.layers
        return [
            weight
            for layer in layers
            for weight in (layer.lora_A[self.name].weight, layer.lora_B[self.name].weight)
        ]

    @torch.no_grad()
    def reset(self) -> None:
        """A as ``nn.Linear`` starts, from this surrogate's own seed, and B zero."""
        generator = keyed_generator(self.seed, "lora", self.name)
        for layer in self.adapters.layers:
            down, up = layer.lora_A[self.name].weight, layer.lora_B[self.name].weight
            start = torch.empty(down.shape, dtype=torch.float32)
            nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            down.copy_(start)
            up.zero_()


class FullSurrogate(Surrogate):
    """A complete set of weights beside the checkpoint's; only preset ``paper`` pays for it."""

    def __init__(self, diffusion: DiffusionModel):
        super().__init__(diffusion)
        self.base = dict(diffusion.unet.named_parameters())
        self.state = {name: parameter.detach().clone() for name, parameter in self.base.items()}

    def predict(self, noisy_latents: Latents, timesteps: Timesteps) -> Latents:
        return self.diffusion.predict(noisy_latents, timesteps, weights=self.state)

    def weights(self) -> list[Tensor]:
        return list(self.state.values())

    @torch.no_grad()
    def reset(self) -> None:
        for name, weight in self.state.items():
            weight.copy_(self.base[name])


@contextmanager
def open_surrogates(
    diffusion: DiffusionModel, settings: SurrogateSettings, names: Sequence[str], seed: int
) -> Iterator[dict[str, Surrogate]]:
    """Puts fresh surrogates on a checkpoint, by name, and takes them off again, whatever happens.

    Args:
        diffusion: The checkpoint; its own weights are bit-identical afterwards.
        settings: LoRA or full weights.
        names: E.g. ``("static", "dynamic")``.
        seed: Of the adapters' first weights.
    """
    is_lora = settings.adaptation == "lora"
    adapters = _Adapters(diffusion.unet, names, settings.lora_rank) if is_lora else None
    surrogates = dict[str, Surrogate]()
    try:
        for name in names:
            surrogates[name] = (
                LoraSurrogate(diffusion, adapters, name, seed)
                if adapters is not None
                else FullSurrogate(diffusion)
            )
        yield surrogates
    finally:
        surrogates.clear()
        if adapters is not None:
            adapters.remove()


class _Adapters:
    """LoRA adapters on one UNet, of which one is active at a time, or none."""

    def __init__(self, unet: nn.Module, names: Sequence[str], rank: int) -> None:
        first, *others = names
        # peft initialises from the global generator, whose state belongs to the caller.
        with torch.random.fork_rng(devices=[]):
            self._model = get_peft_model(unet, _lora_config(rank), adapter_name=first)
            for name in others:
                self._model.add_adapter(name, _lora_config(rank))
        self.layers = [m for m in unet.modules() if isinstance(m, LoraLayer)]
        # Removing adapters must leave the UNet in evaluation mode as it was.
        self._model.eval().requires_grad_(False)
        self._active: list[str] | None = None
        self.activate([])

    def activate(self, names: list[str]) -> None:
        if names == self._active:
            return
        for layer in self.layers:
            required = [parameter.requires_grad for parameter in layer.parameters()]
            # Turns requires_grad off, and on again unless told otherwise (a trap of peft's).
            layer.set_adapter(names, inference_mode=True)
            for parameter, flag in zip(layer.parameters(), required, strict=True):
                parameter.requires_grad_(flag)
        self._active = names

    def remove(self) -> None:
        self._model.unload()


def _lora_config(rank: int) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(LORA_TARGETS), bias="none"
    )
