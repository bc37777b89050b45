"""Graphs as exporters write them: one real recogniser behind many doors, one embedding."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from dladiff.config import EncoderSettings
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.encoders.pixel_ranges import FACTOR_AND_OFFSET, KnownRange
from dladiff.encoders.students import load_student
from dladiff.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # within onnx2torch


def _flat(embeddings: Tensor) -> Tensor:
    return embeddings


def reshape_one(embeddings: Tensor) -> Tensor:
    """What ``view(1, -1)`` becomes: a final shape that holds one crop alone."""
    return embeddings.reshape(1, -1)


def _squeezed(embeddings: Tensor) -> Tensor:
    """An embedding without any batch."""
    return embeddings.squeeze(0)


def _first_alone(embeddings: Tensor) -> Tensor:
    """Nothing makes batches of this: it is asked crop by crop."""
    return embeddings[:1]


def _with_sides(embeddings: Tensor) -> Tensor:
    return embeddings[:, :, None, None]


@dataclass(frozen=True)
class Door:
    """One way to export the same network."""

    pixels: KnownRange
    ending: Callable[[Tensor], Tensor] = _flat
    batch: int | None = None
    """None: free."""
    is_channels_last: bool = False
    is_bgr: bool = False
    side: int = 112
    opset: int = 13
    num_outputs: int = 1


class _Exported(nn.Module):
    """The student ``plain`` behind a door."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self.student, self.door = load_student("plain"), door

    def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        door = self.door
        crops = crops.permute(0, 3, 1, 2) if door.is_channels_last else crops
        crops = crops[:, [2, 1, 0]] if door.is_bgr else crops
        factor, offset = FACTOR_AND_OFFSET[door.pixels]
        images = (crops - offset) / factor
        if door.side != 112:
            images = functional.interpolate(images, size=(112, 112), mode="bilinear")
        embeddings = door.ending(self.student(images))
        return embeddings if door.num_outputs == 1 else (embeddings, images)


def export_student(door: Door, path: Path) -> Path:
    shape = (door.batch or 1, 3, door.side, door.side)
    example = torch.rand(shape)
    free = {"crops": {0: "batch"}} if door.batch is None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter; the newer needs onnxscript
        torch.onnx.export(
            _Exported(door).eval(),
            (example.permute(0, 2, 3, 1) if door.is_channels_last else example,),
            path,
            input_names=["crops"],
            dynamic_axes=free,
            opset_version=door.opset,
            dynamo=False,
        )
    return path


def _load(path: Path, **settings: str) -> IdentityEncoder:
    entry = {"name": "own", "kind": "arcface_onnx", "path": str(path), **settings}
    return load_identity_encoder(EncoderSettings.model_validate(entry), "cpu")


DOORS = {
    "free batch, -1..1": Door("-1..1"),
    "free batch, 0..255": Door("0..255"),
    "free batch, 0..1": Door("0..1"),
    "fixed batch": Door("-1..1", batch=1),
    "Reshape [1, -1] of a free batch": Door("0..255", reshape_one),
    "Reshape [1, -1] of a fixed batch": Door("0..1", reshape_one, batch=1),
    "no batch at the end": Door("-1..1", _squeezed, batch=1),
    "the first crop alone": Door("-1..1", _first_alone, batch=1),
    "1 x 1 maps": Door("-1..1", _with_sides),
    "NHWC": Door("0..255", is_channels_last=True),
    "NHWC, fixed batch, Reshape": Door("-1..1", reshape_one, batch=1, is_channels_last=True),
    "BGR": Door("0..255", is_bgr=True),
    "160 px": Door("-1..1", batch=1, side=160),
    "opset 11": Door("0..255", opset=11),
    "opset 17": Door("-1..1", opset=17),
    "opset 18": Door("-1..1", reshape_one, opset=18),
    "a second output": Door("0..1", num_outputs=2),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_the_same_recogniser_gives_the_same_embeddings_behind_every_door(
    door: Door, tmp_path: Path
) -> None:
    said = {"channels": "bgr"} if door.is_bgr else {}
    encoder = _load(export_student(door, tmp_path / "own.onnx"), **said)
    coarse = torch.rand(3, 3, 14, 14, generator=torch.Generator().manual_seed(5))
    crops = functional.interpolate(coarse, size=(encoder.side,) * 2, mode="bilinear")
    crops.requires_grad_(True)
    student = load_student("plain")
    expected = student(
        crops
        if door.side == 112
        else functional.interpolate(crops, size=(112,) * 2, mode="bilinear")
    )
    ours = encoder.embed(crops)
    assert encoder.side == door.side
    assert encoder.template.max() < door.side
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)
    (gradient,) = torch.autograd.grad(ours[:, 0].sum(), crops)
    assert float((gradient != 0).float().mean()) > 0.9


def test_what_is_said_wins_over_what_is_measured(tmp_path: Path) -> None:
    path = export_student(Door("0..255"), tmp_path / "own.onnx")
    crops = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(5))
    expected = load_student("plain")(crops / 255)
    ours = _load(path, pixels="0..1").embed(crops)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


def test_a_graph_that_tells_no_faces_apart_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        path = tmp_path / "blind.onnx"
        torch.onnx.export(blind, (torch.rand(1, 3, 112, 112),), path, dynamo=False)
    with pytest.raises(ModelError, match=r"none of the ranges .*say in its entry what it takes"):
        _load(path)


def test_a_graph_of_no_image_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["audio"], ["embedding"])
    audio, embedding = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 400])]
        for name in ("audio", "embedding")
    )
    graph = helper.make_graph([node], "voice", audio, embedding)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "v.onnx")
    with pytest.raises(ModelError, match=r"one input, square images; found audio \[1, 400\]"):
        _load(tmp_path / "v.onnx")


def test_other_kinds_take_no_range() -> None:
    with pytest.raises(ValidationError, match="'sface' knows its own"):
        EncoderSettings(name="sface", kind="sface", pixels="0..255")
