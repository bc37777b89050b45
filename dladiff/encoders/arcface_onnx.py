"""ArcFace-type ONNX files as frozen torch modules, checked against onnxruntime.

Knows graphs and weights: pixel ranges, quantised blocks, conversion. Knows nothing of faces.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnx2torch import convert
from onnx2torch.node_converters.activations import OnnxPReLU
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dladiff.errors import ModelError

_SIDE = 112
_MIN_COSINE_TO_RUNTIME = 0.9999
_CONVERTER_OPSET = 16
"""The newest opset that the converter knows throughout."""


def arcface_network(model: onnx.ModelProto, name: str) -> nn.Module:
    """Converts an ArcFace-type graph (RGB, 112 px) to a torch module that takes [0, 1].

    Checked against onnxruntime on a batch of two, since a converter may be silently wrong.

    Raises:
        ModelError: If it cannot be converted, or an embedding differs.
    """
    if model.opset_import[0].version > _CONVERTER_OPSET:
        model.opset_import[0].version = _CONVERTER_OPSET
    try:
        converted: nn.Module = convert(model)
    except (NotImplementedError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"encoder {name!r}: the ONNX graph cannot be converted: {error}"
        ) from error
    scales_itself = graph_scales_itself(model)
    network = _OwnRange(quickened(converted), scales_itself).eval().requires_grad_(False)
    _require_agreement(network, model, scales_itself, name)
    return network


class _FrozenPReLU(nn.Module):
    """PReLU with a slope that gets no gradient: its backward pass costs a quarter of torch's."""

    def forward(self, features: Tensor, slope: Tensor) -> Tensor:
        return torch.addcmul(slope * features, torch.relu(features), 1.0 - slope)


def quickened(network: nn.Module) -> nn.Module:
    """The same function with batch norms folded into convolutions and a frozen PReLU.

    Saves a quarter of a forward and backward pass of SFace on a CPU; what it gives is checked
    against onnxruntime like the rest of the conversion.
    """
    if not isinstance(network, fx.GraphModule):
        return network
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, OnnxPReLU):
            setattr(network, str(node.target), _FrozenPReLU())
        elif isinstance(module, nn.BatchNorm2d):
            before = node.args[0]
            convolution = modules.get(str(before.target))
            if isinstance(convolution, nn.Conv2d) and len(before.users) == 1:
                fused = fuse_conv_bn_eval(convolution.eval(), module.eval())
                setattr(network, str(before.target), fused)
                node.replace_all_uses_with(before)
                network.graph.erase_node(node)
    network.recompile()
    return network


def graph_scales_itself(model: onnx.ModelProto) -> bool:
    """Whether the graph takes 0..255: insightface's rule, a Sub and a Mul among the first nodes.

    Other graphs take ``(v - 127.5) / 127.5``. The nodes' types are read rather than their
    names, which exporters change.
    """
    first = {node.op_type for node in model.graph.node[:8]}
    before_convolution = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            break
        before_convolution.add(node.op_type)
    return {"Sub", "Mul"} <= first & before_convolution or {"Sub", "Div"} <= before_convolution


def _require_agreement(
    network: nn.Module, model: onnx.ModelProto, scales_itself: bool, name: str
) -> None:
    """Compares with onnxruntime on two smooth random images."""
    coarse = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    images = functional.interpolate(coarse, size=(_SIDE, _SIDE), mode="bilinear")
    onnxruntime.disable_telemetry_events()
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        pixels = images * 255.0 if scales_itself else images * 2.0 - 1.0
        feed = session.get_inputs()[0].name
        rows = [session.run(None, {feed: image[None].numpy()})[0] for image in pixels]
        with torch.no_grad():
            ours = network(images).flatten(1)
    except Exception as error:  # onnxruntime and converted graphs raise types of their own
        raise ModelError(f"encoder {name!r}: the ONNX graph does not run: {error}") from error
    theirs = torch.from_numpy(np.concatenate(rows)).flatten(1)
    if ours.shape != theirs.shape:
        raise ModelError(f"encoder {name!r}: embeddings {ours.shape}, reference {theirs.shape}")
    cosine = float(functional.cosine_similarity(ours, theirs).min())
    if not cosine > _MIN_COSINE_TO_RUNTIME:
        raise ModelError(
            f"encoder {name!r}: cosine {cosine:.5f} to onnxruntime, expected over "
            f"{_MIN_COSINE_TO_RUNTIME}; the converted graph is wrong"
        )


class _OwnRange(nn.Module):
    """Maps [0, 1] to the pixel range of a graph: 0..255, or [-1, 1] as insightface does."""

    def __init__(self, network: nn.Module, scales_itself: bool) -> None:
        super().__init__()
        self.network = network
        self.factor, self.offset = (255.0, 0.0) if scales_itself else (2.0, -1.0)

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.network(images * self.factor + self.offset)
        return embeddings


def read_onnx(path: Path) -> onnx.ModelProto:
    """Reads a graph.

    Raises:
        ModelError: If it is missing or damaged.
    """
    if not path.is_file():
        raise ModelError(f"no ONNX file at {path}")
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf raises types of its own
        raise ModelError(f"{path} is not a readable ONNX file: {error}") from error


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
    model.opset_import[0].version = _CONVERTER_OPSET
    return model


def _dequantised(
    quantised: np.ndarray, scales: np.ndarray, zeros: np.ndarray, axis: int, block_size: int
) -> np.ndarray:
    length = quantised.shape[axis]
    scale = np.repeat(scales, block_size, axis=axis).take(range(length), axis=axis)
    zero = np.repeat(zeros, block_size, axis=axis).take(range(length), axis=axis)
    weights: np.ndarray = (quantised.astype(np.float32) - zero.astype(np.float32)) * scale
    return weights.astype(np.float32)
