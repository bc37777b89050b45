"""ONNX files of recognisers as frozen torch modules, checked against onnxruntime.

Knows graphs as exporters write them: sides, order of axes, batches, opsets. Knows nothing of faces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from onnx import numpy_helper, version_converter
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dladiff.config import PixelRange
from dladiff.encoders.onnx_converter import OnnxPReLU, convert
from dladiff.encoders.pixel_ranges import FACTOR_AND_OFFSET, KnownRange, in_range, measured_range
from dladiff.errors import ModelError
from dladiff.faces import ARCFACE_SIDE
from dladiff.image_values import Images

_MIN_COSINE_TO_RUNTIME = 0.9999
CONVERTER_OPSET = 16
"""The newest opset that the converter knows throughout."""


@dataclass(frozen=True)
class GraphInput:
    """How a graph wants its crops."""

    name: str
    side: int
    """Side of the square crop, in pixels."""
    is_channels_last: bool
    """(batch, y, x, channel), as TensorFlow has it."""
    is_bgr: bool

    def arranged(self, values: Images) -> Tensor:
        """Crops (batch, RGB, y, x) in the graph's order of channels and axes."""
        values = values.flip(1) if self.is_bgr else values
        return values.permute(0, 2, 3, 1) if self.is_channels_last else values


def arcface_network(
    model: onnx.ModelProto,
    name: str,
    pixels: PixelRange = "measured",
    channels: Literal["rgb", "bgr"] = "rgb",
) -> tuple[nn.Module, int]:
    """Converts a recogniser's graph to a torch module that takes RGB in [0, 1].

    Graphs whose batch is fixed at one are given batches by their Reshape nodes, or one crop
    after the other. Each is checked against onnxruntime on a batch of two, since a converter may
    be silently wrong.

    Args:
        model: Graph of one image to one embedding, its first output.
        name: Of the encoder, for errors.
        pixels: Values that the graph takes.
        channels: Order of the colours that it takes.

    Returns:
        The module, and the side of the crops that it reads.

    Raises:
        ModelError: If it cannot be converted, or an embedding differs, or it tells faces apart in
            no known range of values.
    """
    wanted = _input_of(model, name, channels == "bgr")
    del model.graph.output[1:]
    reference = _reference(model, wanted, name)
    if pixels == "measured":
        pixels = measured_range(reference, wanted.side)
        if pixels == "measured":
            raise ModelError(
                f"encoder {name!r}: the graph tells faces apart in none of the ranges "
                f"{', '.join(FACTOR_AND_OFFSET)}: is it a face recogniser? If so, say in its entry "
                "what it takes (pixels)"
            )
    trouble = ""
    for graph, is_one_by_one in _with_batches(_plain(_older(model))):
        try:
            converted: nn.Module = convert(graph)
        except (NotImplementedError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            raise ModelError(
                f"encoder {name!r}: the ONNX graph cannot be converted: {error}"
            ) from error
        network = _AsGraphReads(quickened(converted), wanted, pixels, is_one_by_one)
        network = network.eval().requires_grad_(False)
        trouble = _disagreement(network, reference, wanted.side, pixels)
        if not trouble:
            return network, wanted.side
    raise ModelError(f"encoder {name!r}: {trouble}")


def _input_of(model: onnx.ModelProto, name: str, is_bgr: bool) -> GraphInput:
    """Reads the graph's one input; a free side is that of ArcFace's crops."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    sizes = _sizes(inputs[0]) if len(inputs) == 1 else []
    is_channels_last = len(sizes) == 4 and sizes[3] == 3 and sizes[1] != 3
    height_and_width = sizes[1:3] if is_channels_last else sizes[2:4]
    sides = {size or ARCFACE_SIDE for size in height_and_width}
    if len(sizes) != 4 or len(sides) != 1:
        found = ", ".join(f"{item.name} {_sizes(item)}" for item in inputs)
        raise ModelError(
            f"encoder {name!r}: expected a graph of one input, square images; found {found}"
        )
    return GraphInput(inputs[0].name, sides.pop(), is_channels_last, is_bgr)


def _sizes(item: onnx.ValueInfoProto) -> list[int]:
    """The size of each axis; 0: free."""
    return [size.dim_value for size in item.type.tensor_type.shape.dim]


def _older(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in an opset that the converter knows throughout."""
    if model.opset_import[0].version <= CONVERTER_OPSET:
        return model
    try:
        return version_converter.convert_version(model, CONVERTER_OPSET)
    except Exception:  # its C++ raises types of its own; most graphs mean the same as they are
        model.opset_import[0].version = CONVERTER_OPSET
        return model


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph as the converter expects it: constants among the weights, and no empty names
    for what is left out at a node's end, as torch writes after a unit-length head."""
    graph = model.graph
    for node in graph.node:
        while node.input and not node.input[-1]:
            node.input.pop()
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        value = onnx.helper.get_attribute_value(node.attribute[0])
        if not isinstance(value, onnx.TensorProto):
            kind = np.int64 if node.attribute[0].name.startswith("value_int") else np.float32
            value = numpy_helper.from_array(np.array(value, kind))
        value.name = node.output[0]
        graph.initializer.append(value)
        graph.node.remove(node)
    return model


def _with_batches(model: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, bool]]:
    """The graph as it is; with Reshapes that keep the batch; for one crop after the other."""
    yield model, False
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in freed.graph.initializer}
    for node in freed.graph.node:
        if node.op_type == "Reshape" and node.input[0] not in constants:
            shape = constants.get(node.input[1])
            if shape is not None and (sizes := numpy_helper.to_array(shape).copy())[:1] == 1:
                sizes[0] = 0  # as many as come in
                shape.CopyFrom(numpy_helper.from_array(sizes, shape.name))
    yield freed, False
    yield model, True


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


def _reference(
    model: onnx.ModelProto, wanted: GraphInput, name: str
) -> Callable[[Images], Float[Tensor, "batch dim"]]:
    """The graph in onnxruntime, one crop at a time, from values of its range to embeddings."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3

    def embed(values: Images) -> Float[Tensor, "batch dim"]:
        arranged = wanted.arranged(values).numpy()
        rows = [
            session.run(None, {wanted.name: np.ascontiguousarray(one[None])})[0] for one in arranged
        ]
        return torch.from_numpy(np.stack([row.reshape(-1) for row in rows]))

    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        embed(torch.zeros(1, 3, wanted.side, wanted.side))
    except Exception as error:  # onnxruntime raises types of its own
        raise ModelError(f"encoder {name!r}: the ONNX graph does not run: {error}") from error
    return embed


def _disagreement(
    network: nn.Module,
    reference: Callable[[Images], Float[Tensor, "batch dim"]],
    side: int,
    pixels: KnownRange,
) -> str:
    """Compares with onnxruntime on two smooth random images; empty where they agree."""
    coarse = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    images = functional.interpolate(coarse, size=(side, side), mode="bilinear")
    theirs = reference(in_range(images, pixels))
    try:
        with torch.no_grad():
            ours = network(images)
    except Exception as error:  # converted graphs raise types of their own
        return f"the converted ONNX graph does not run: {error}"
    if ours.shape != theirs.shape:
        return f"embeddings {list(ours.shape)}, reference {list(theirs.shape)}"
    cosine = float(functional.cosine_similarity(ours, theirs).min())
    if not cosine > _MIN_COSINE_TO_RUNTIME:
        return (
            f"cosine {cosine:.5f} to onnxruntime, expected over {_MIN_COSINE_TO_RUNTIME}; the "
            "converted graph is wrong"
        )
    return ""


class _AsGraphReads(nn.Module):
    """Gives a graph RGB crops in [0, 1] in its own range, order and batches."""

    def __init__(
        self, network: nn.Module, wanted: GraphInput, pixels: KnownRange, is_one_by_one: bool
    ) -> None:
        super().__init__()
        self.network, self.wanted = network, wanted
        self.pixels, self.is_one_by_one = pixels, is_one_by_one

    def forward(self, images: Tensor) -> Tensor:
        values = self.wanted.arranged(in_range(images, self.pixels))
        if self.is_one_by_one:
            return torch.cat([self.network(one[None]).reshape(1, -1) for one in values])
        embeddings: Tensor = self.network(values)
        return embeddings.flatten(1)


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
