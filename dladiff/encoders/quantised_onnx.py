"""ONNX files whose weights are quantised in blocks, as float files that converters know."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from dladiff.encoders.arcface_onnx import CONVERTER_OPSET, read_onnx


def read_folded(source: Path, cache_dir: Path | None) -> onnx.ModelProto:
    """A block-quantised file with float weights instead, from the cache if it has them.

    Args:
        source: The quantised file; its digest names the cached one.
        cache_dir: None: not cached.
    """
    if cache_dir is None:
        return fold_block_quantised(read_onnx(source))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    cached = cache_dir / f"{source.stem}-float-{digest[:16]}.onnx"
    if not cached.is_file():
        _write_whole(cached, fold_block_quantised(read_onnx(source)).SerializeToString())
    return read_onnx(cached)


def _write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def fold_block_quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces block-quantised weights by the float weights they stand for.

    The file as shipped declares its weights as graph inputs and keeps them as int8 blocks
    (DequantizeLinear of opset 21), which runtimes and converters refuse. Dropout goes too.
    """
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    aliases: dict[str, str] = {}
    for node in graph.node:
        options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "DequantizeLinear":
            quantised, scales, zeros = (values[name] for name in node.input)
            axis, block_size = options["axis"], options["block_size"]
            values[node.output[0]] = _dequantised(quantised, scales, zeros, axis, block_size)
        elif node.op_type == "Reshape" and node.input[0] in values:
            shape = values[node.input[1]].astype(int)
            values[node.output[0]] = values[node.input[0]].reshape(shape)
        elif node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(options["value"])
        elif node.op_type == "Dropout":
            aliases[node.output[0]] = node.input[0]
        else:
            node.input[:] = [aliases.get(name, name) for name in node.input]
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in values.items()
        if name in used
    )
    inputs = [item for item in graph.input if item.name in used - values.keys()]
    del graph.input[:]
    graph.input.extend(inputs)
    model.opset_import[0].version = CONVERTER_OPSET
    return model


def _dequantised(
    quantised: np.ndarray, scales: np.ndarray, zeros: np.ndarray, axis: int, block_size: int
) -> np.ndarray:
    length = quantised.shape[axis]
    scale = np.repeat(scales, block_size, axis=axis).take(range(length), axis=axis)
    zero = np.repeat(zeros, block_size, axis=axis).take(range(length), axis=axis)
    weights: np.ndarray = (quantised.astype(np.float32) - zero.astype(np.float32)) * scale
    return weights.astype(np.float32)
