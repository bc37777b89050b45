"""What an accelerator has and a CPU has not; the one place that names a kind of device.

All else asks whether a device is one. ROCm's devices are ``cuda`` to torch too. Imports torch only
where it works: who sizes a pool needs none.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

ACCELERATOR = "cuda"
"""The kind that workers with a share of a GPU compute on."""

Precision = Literal["float32", "bfloat16"]


def is_accelerator(device: "torch.device") -> bool:
    """Whether a device computes beside the host, which then need not wait for it."""
    return device.type not in ("cpu", "meta")


def best_device() -> "torch.device":
    """The first accelerator, or the CPU where there is none."""
    import torch

    return torch.device(ACCELERATOR if torch.cuda.is_available() else "cpu")


def precision_on(device: "torch.device", wanted: Literal["auto", "float32"]) -> Precision:
    """``auto`` is bfloat16 on an accelerator; on a CPU float32, which is faster there."""
    return "bfloat16" if wanted == "auto" and is_accelerator(device) else "float32"


def autocast(device: "torch.device", precision: Precision) -> AbstractContextManager[None]:
    """Lower precision where networks bear it, on an accelerator, if asked for."""
    if precision == "float32" or not is_accelerator(device):
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.bfloat16)


def use_tensor_cores(device: "torch.device", precision: Precision) -> None:
    """Lets products of float32 round their factors (TF32) on an accelerator with lower precision.

    Of the process, so that it holds for recognisers as well. With ``float32`` as it was.
    """
    if is_accelerator(device) and precision == "bfloat16":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


def wait_for(device: "torch.device") -> None:
    """Waits until an accelerator has done what it was told."""
    if is_accelerator(device):
        import torch

        torch.get_device_module(device).synchronize(device)


def peak_memory_bytes(device: "torch.device") -> int | None:
    """The most that this process had of an accelerator's memory; None on a CPU."""
    if not is_accelerator(device):
        return None
    import torch

    return int(torch.get_device_module(device).max_memory_allocated(device))


def memory_bytes(device: "torch.device") -> int | None:
    """What an accelerator has in all; None on a CPU."""
    if not is_accelerator(device):
        return None
    import torch

    return int(torch.get_device_module(device).get_device_properties(device).total_memory)
