"""An accelerator that computes nothing: what runs on it has shapes, devices, costs, and no values.

Tensors on the device ``stand_in`` are fake tensors of torch, so that a model of any size costs
neither memory nor time; all others stay real, so that draws, geometry and loops go as always. What
a real accelerator refuses, it refuses: operations of two devices. What makes a real one wait, it
notes with the place that asked: a value, or a copy to the host. Counted are floating-point
operations, by torch's own formulas, and bytes.
"""

import linecache
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)
from torch.utils.flop_counter import flop_registry

NAME = "stand_in"
_PACKAGE = Path(__file__).parents[1] / "dladiff"
_ASKS_FOR_A_VALUE = ("aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero")
_COPIES = ("aten::_to_copy", "aten::copy_")


class HostSyncError(RuntimeError):
    """The host would wait for the accelerator where it must not."""


class _Backend(_DummyBackendModule):
    """What torch asks the module of a device."""

    total_memory = 80 * 2**30

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_device_properties(self, device: torch.device) -> "_Backend":
        return self

    def synchronize(self, device: torch.device) -> None:
        """There is nothing to wait for."""

    def max_memory_allocated(self, device: torch.device) -> int:
        return 0

    def get_rng_state(self, device: int) -> torch.Tensor:
        """It draws nothing; torch's ``fork_rng`` asks every device that is registered."""
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: int) -> None:
        """There is none."""


@cache
def device() -> torch.device:
    """The device; registers it with torch at the first call, for the life of the process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    _register_autocast()
    return torch.device(NAME, 0)


_LOWERED = ("conv2d", "conv3d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm")
_LOWERED_TOO = ("scaled_dot_product_attention",)
_RAISED = ("group_norm", "layer_norm", "softmax.int", "sum", "sum.dim_IntList", "exp", "rsqrt")
"""Of what torch's autocast runs in lower precision on CUDA, and in float32: what models have."""


def _register_autocast() -> None:
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    aten = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for name in _LOWERED + _LOWERED_TOO:
        aten.impl(name, _cast_first(name, torch.bfloat16), "AutocastPrivateUse1")
    for name in _RAISED:
        aten.impl(name, _cast_first(name, torch.float32), "AutocastPrivateUse1")
    _LIBRARIES.extend((library, aten))


_LIBRARIES: list[Any] = []
"""Registrations live as long as these."""


_AUTOCAST: Any = getattr(torch._C.DispatchKey, "AutocastPrivateUse1")  # noqa: B009


def _cast_first(name: str, dtype: torch.dtype) -> Any:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
    keys = torch._C.DispatchKeySet(_AUTOCAST)

    def cast(leaf: Any) -> Any:
        is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(dtype) if is_float else leaf

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operation(*tree_map(cast, args), **kwargs)

    return run


@dataclass(eq=False)
class StandIn(TorchDispatchMode):
    """The context in which ``device()`` works; bytes and operations are of that device alone.

    Bytes are of tensors that operations in the context made. Views share what they look at, and
    what autograd saved is alive as long as its graph.
    """

    waits_allowed: frozenset[str] | None = None
    """Functions that may wait for the device, as ``file:function`` below the package; None: all.
    Whoever asks gets zeros."""
    waits: Counter[str] = field(default_factory=Counter)
    """How often the host waited, by the function that asked."""
    flops: int = 0
    """Floating-point operations so far."""
    live_bytes: int = 0
    peak_bytes: int = 0
    _known: set[int] = field(default_factory=set)
    _fake: FakeTensorMode = field(default_factory=FakeTensorMode)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> "StandIn":
        # torch.tensor(values, device=...) makes its tensor past all modes; then it is only lifted.
        self._only_lift = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch._C._set_only_lift_cpu_tensors(self._only_lift)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = self._compute(func, args, kwargs or {})
        self._count(func, args, kwargs or {}, out)
        return out

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Collects, at the end of the context, the most bytes that were alive in it."""
        outer, self.peak_bytes = self.peak_bytes, self.live_bytes
        found: list[int] = []
        try:
            yield found
        finally:
            found.append(self.peak_bytes)
            self.peak_bytes = max(outer, self.peak_bytes)

    def note_wait(self) -> None:
        """Notes who waits.

        Raises:
            HostSyncError: If it must not.
        """
        asker = _asker()
        self.waits[asker] += 1
        if self.waits_allowed is not None and asker not in self.waits_allowed:
            raise HostSyncError(f"{asker} waits for the accelerator")

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves = tree_leaves((args, kwargs))
        if not any(_is_there(leaf) for leaf in leaves):
            return func(*args, **kwargs)
        if (answer := self._if_it_waits(func, args, kwargs)) is not None:
            return answer[0]
        args, kwargs = tree_map(self._faked, (args, kwargs))
        try:
            with self._fake:
                return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            self.note_wait()
            raise HostSyncError(f"{func}: its shape depends on values ({_asker()})") from error

    def _if_it_waits(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any] | None:
        """What an operation gives that makes the host wait; None: it does not."""
        name = func._schema.name
        if name in _ASKS_FOR_A_VALUE:
            self.note_wait()
            if name != _ASKS_FOR_A_VALUE[0] or args[0].dtype == torch.bool:
                return (_is_asserted(),)
            return (torch.zeros((), dtype=args[0].dtype).item(),)
        if name in _COPIES:
            source = args[1] if name == "aten::copy_" else args[0]
            to_host = (
                not _is_there(args[0]) if name == "aten::copy_" else _goes_to_host(source, kwargs)
            )
            if to_host and _is_there(source):
                self.note_wait()
                if name == "aten::copy_":
                    return (args[0].zero_(),)
                dtype = kwargs.get("dtype") or source.dtype
                return (torch.zeros(source.shape, dtype=dtype),)
        return None

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        formula = flop_registry.get(func._overloadpacket)
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if formula is not None and any(_is_there(tensor) for tensor in tensors):
            self.flops += formula(*args, **kwargs, out_val=out)
        for tensor in tensors:
            if _is_there(tensor):
                self._watch(tensor.untyped_storage())

    def _watch(self, storage: Any) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.live_bytes -= num_bytes

    def _faked(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor):
            return self._fake.from_tensor(leaf)
        return leaf


def _is_there(leaf: Any) -> bool:
    if isinstance(leaf, torch.device):
        return leaf.type == NAME
    return isinstance(leaf, FakeTensor) and leaf.device.type == NAME


def _goes_to_host(source: Tensor, kwargs: dict[str, Any]) -> bool:
    target = kwargs.get("device")
    return target is not None and torch.device(target).type != NAME


def _is_asserted() -> bool:
    """What a condition has for an answer: assertions of libraries hold, all else is False."""
    frame: Any = sys._getframe(1)
    own, torchs = Path(__file__), Path(torch.__file__).parent
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != own and not path.is_relative_to(torchs):
            line = linecache.getline(str(path), frame.f_lineno).strip()
            return line.startswith("assert") and not line.startswith("assert not")
        frame = frame.f_back
    return False


def _asker() -> str:
    """The innermost function of the package on the stack, ``file:function``."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            return f"{path.relative_to(_PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
