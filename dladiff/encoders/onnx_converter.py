"""``onnx2torch`` without torchvision, whose import takes longer than all of the method's.

Two of its converters, for the boxes of object detectors, import torchvision, which imports
torch._dynamo and sympy: 5 of 10 CPU seconds of a start. No recogniser has such nodes.
"""

import sys
from collections.abc import Callable
from types import ModuleType

import onnx
from torch import nn

_OF_DETECTORS = ("onnx2torch.node_converters.nms", "onnx2torch.node_converters.roialign")


def _import_converter() -> tuple[Callable[[onnx.ModelProto], nn.Module], type[nn.Module]]:
    if "onnx2torch" not in sys.modules:
        sys.modules.update({name: ModuleType(name) for name in _OF_DETECTORS})
    from onnx2torch import convert
    from onnx2torch.node_converters.activations import OnnxPReLU

    return convert, OnnxPReLU


convert, OnnxPReLU = _import_converter()
