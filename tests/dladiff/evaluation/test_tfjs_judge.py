"""A graph of TensorFlow.js written by hand, against what its operations mean, and as a judge."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from dladiff.config import EncoderSettings
from dladiff.encoders.identity_encoders import load_identity_encoder
from dladiff.evaluation.tfjs_judge import Graph, Recipe, export

RECIPE = Recipe("embedding", 112, is_bgr=True, mean_levels=(1.0, 2.0, 3.0))


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def convolution(name: str, op: str, *inputs: str, stride: int, padding: bytes) -> dict[str, Any]:
    strides = {"list": {"i": ["1", str(stride), str(stride), "1"]}}
    return node(
        name, op, *inputs, strides=strides, padding={"s": base64.b64encode(padding).decode()}
    )


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).normal
    return {
        "kernel": draw(size=(3, 3, 3, 4)).astype(np.float32),
        "depthwise": draw(size=(3, 3, 4, 1)).astype(np.float32),
        "slope": draw(size=(1, 1, 1, 4)).astype(np.float32),
        "bias": draw(size=4).astype(np.float32),
        "mixing": draw(size=(4, 5)).astype(np.float32),
    }


@pytest.fixture
def model(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    nodes = [
        node("image", "Placeholder"),
        *(node(name, "Const") for name in weights),
        convolution("a", "Conv2D", "image", "kernel", stride=2, padding=b"SAME"),
        node("b", "Add", "a", "bias"),
        node("c", "Mul", "b", "slope"),
        convolution("d", "DepthwiseConv2dNative", "c", "depthwise", stride=1, padding=b"VALID"),
        node("e", "Relu", "d:0"),
        node("f", "Mean", "e"),
        node("embedding", "MatMul", "f", "mixing"),
    ]
    entries = [
        {"name": name, "shape": list(value.shape), "dtype": "float32"}
        for name, value in weights.items()
    ]
    (tmp_path / "model.bin").write_bytes(b"".join(value.tobytes() for value in weights.values()))
    path = tmp_path / "model.json"
    manifest = [{"paths": ["model.bin"], "weights": entries}]
    path.write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}))
    return path


def meant(weights: dict[str, np.ndarray], images: torch.Tensor) -> torch.Tensor:
    """The graph above. 112 px at stride 2 and "SAME": one pixel, behind."""
    of = {name: torch.from_numpy(value) for name, value in weights.items()}
    padded = functional.pad(images, (0, 1, 0, 1))
    seen = functional.conv2d(padded, of["kernel"].permute(3, 2, 0, 1), stride=2)
    seen = (seen + of["bias"].reshape(1, 4, 1, 1)) * of["slope"].reshape(1, 4, 1, 1)
    seen = functional.conv2d(seen, of["depthwise"].permute(2, 3, 0, 1), groups=4)
    return functional.relu(seen).mean(dim=(2, 3)) @ of["mixing"]


def test_a_graph_does_what_its_operations_mean(model: Path, weights: dict[str, np.ndarray]) -> None:
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(Graph(model, "embedding")(images), meant(weights, images))


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # within onnx2torch
def test_the_exported_file_is_a_judge_that_reads_crops_as_the_graph_wants_them(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    export(RECIPE, model, tmp_path / "judge.onnx")
    path = str(tmp_path / "judge.onnx")
    settings = EncoderSettings(name="own", kind="arcface_onnx", path=path, pixels="-1..1")
    crops = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(2))
    levels = crops.flip(1) * 255 - torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    expected = functional.normalize(meant(weights, levels), dim=1)
    torch.testing.assert_close(
        load_identity_encoder(settings, "cpu").embed(crops), expected, atol=1e-4, rtol=0
    )


def test_what_it_does_not_know_is_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="has no tensor 'elsewhere'"):
        Graph(model, "elsewhere")
    described = json.loads(model.read_text())
    described["modelTopology"]["node"][-3]["op"] = "Elu"
    model.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="e: operation Elu is not known here"):
        Graph(model, "embedding")(torch.zeros(1, 3, 112, 112))
    described["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8"}
    model.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="is quantised"):
        Graph(model, "embedding")
