"""The shipped reference models: they load, they run, they are small, and their split is kept."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from dladiff.config import FaceDetectorSettings
from dladiff.encoders.students import (
    STUDENT_NAMES,
    StudentName,
    build_student,
    load_student,
)
from dladiff.evaluation.attackers_view import warp_photo
from dladiff.face_detection import load_face_detector
from dladiff.faces import estimate_similarity
from dladiff.weight_files import (
    ATTACKERS_CHECKPOINT,
    EMBEDDED_CHECKPOINT,
    REFERENCE_MODELS,
    STUDENTS,
)
from tools.training.cache_latents import training_rows
from tools.training.export_reference_models import LARGEST_ATTACKER_BYTES, LARGEST_FOLDER_BYTES
from tools.training.face_alignment import FACES_128, find_face, recognition_crop
from tools.training.face_data import is_held_out, to_images

CHECKPOINT = EMBEDDED_CHECKPOINT
ADAPTER = REFERENCE_MODELS / "adapters" / "sface-ip-adapter.safetensors"
DATA = Path(__file__).parents[2].parent / "shared" / "data"

needs_checkpoint = pytest.mark.skipif(
    not (CHECKPOINT / "model_index.json").is_file(), reason="no reference checkpoint installed"
)
needs_students = pytest.mark.skipif(not STUDENTS.is_dir(), reason="no student encoders installed")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(CHECKPOINT)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_folder_is_small_and_holds_neither_pickles_nor_pictures() -> None:
    files = [path for path in REFERENCE_MODELS.rglob("*") if path.is_file()]
    attackers = [path for path in files if ATTACKERS_CHECKPOINT in path.parents]
    others = set(files) - set(attackers)
    assert sum(path.stat().st_size for path in others) <= LARGEST_FOLDER_BYTES
    assert sum(path.stat().st_size for path in attackers) <= LARGEST_ATTACKER_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}


@pytest.mark.skipif(
    not (ATTACKERS_CHECKPOINT / "model_index.json").is_file(), reason="no attacker's checkpoint"
)
def test_the_attackers_model_is_of_another_build_and_sees_the_same_faces() -> None:
    attacker = StableDiffusionPipeline.from_pretrained(ATTACKERS_CHECKPOINT)
    assert attacker.vae.config.latent_channels == attacker.unet.config.in_channels == 4
    templates = [
        json.loads((folder / "face_template.json").read_text())["landmarks"]
        for folder in (ATTACKERS_CHECKPOINT, CHECKPOINT)
    ]
    assert templates[0] == templates[1]


@needs_checkpoint
def test_pipeline_loads_as_it_is_and_makes_an_image(pipeline: StableDiffusionPipeline) -> None:
    image = pipeline(
        "a photo of sks person",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    assert image.shape == (1, 128, 128, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0.05


@needs_checkpoint
def test_checkpoint_is_shaped_as_stable_diffusion(pipeline: StableDiffusionPipeline) -> None:
    scheduler = pipeline.scheduler.config
    assert scheduler.beta_schedule == "scaled_linear"
    assert not scheduler.clip_sample
    assert scheduler.steps_offset == 1
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.safety_checker is None
    down = [name for name in pipeline.unet.attn_processors if name.startswith("down_blocks")]
    assert {name.split(".")[1] for name in down} == {"0", "1"}


@needs_checkpoint
def test_sks_is_one_token(pipeline: StableDiffusionPipeline) -> None:
    tokens = pipeline.tokenizer.tokenize("a photo of sks person")
    assert tokens == ["a</w>", "photo</w>", "of</w>", "sks</w>", "person</w>"]


@needs_checkpoint
def test_face_template_is_that_of_the_portraits() -> None:
    landmarks = json.loads((CHECKPOINT / "face_template.json").read_text())["landmarks"]
    expected = [[0.355, 0.45], [0.645, 0.45], [0.5, 0.61], [0.38, 0.755], [0.62, 0.755]]
    np.testing.assert_allclose(landmarks, expected)


@needs_checkpoint
def test_adapter_loads_as_face_id_and_changes_the_image(pipeline: StableDiffusionPipeline) -> None:
    pipeline.load_ip_adapter(
        str(ADAPTER.parent), subfolder="", weight_name=ADAPTER.name, image_encoder_folder=None
    )
    vectors = torch.randn(2, 1, 1, 128, generator=torch.Generator().manual_seed(1))
    first, second = (
        pipeline(
            "a photo of a person",
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            ip_adapter_image_embeds=[torch.cat([torch.zeros_like(vector), vector])],
            output_type="np",
        ).images
        for vector in torch.nn.functional.normalize(vectors, dim=-1)
    )
    assert np.abs(first - second).mean() > 1e-3


@needs_checkpoint
def test_adapter_has_four_tokens_and_serves_every_cross_attention(
    pipeline: StableDiffusionPipeline,
) -> None:
    layers = [
        index
        for index, name in enumerate(pipeline.unet.attn_processors)
        if name.endswith("attn2.processor")
    ]
    expected = {f"ip_adapter.{i}.to_{part}_ip.weight" for i in layers for part in "kv"}
    with safe_open(ADAPTER, framework="pt") as file:
        names = set(file.keys())
        width = file.get_slice("image_proj.proj.2.weight").get_shape()[0]
    assert {name for name in names if name.startswith("ip_adapter.")} == expected
    assert width == 4 * pipeline.unet.config.cross_attention_dim


@pytest.mark.parametrize("name", STUDENT_NAMES)
def test_student_gives_unit_embeddings_and_a_gradient_to_the_pixels(name: StudentName) -> None:
    student = build_student(name).eval()
    images = torch.rand(2, 3, 112, 112, requires_grad=True)
    embeds = student(images)
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(2))
    (gradient,) = torch.autograd.grad(embeds[:, 0].sum(), images)
    assert gradient.abs().sum() > 0


def _unchecked_build(name: str) -> object:
    return inspect.unwrap(build_student)(name)


def test_unknown_student_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown student encoder 'huge'"):
        _unchecked_build("huge")


@needs_students
@pytest.mark.parametrize("name", STUDENT_NAMES)
def test_student_file_is_at_most_four_megabytes(name: StudentName) -> None:
    assert (STUDENTS / f"{name}.safetensors").stat().st_size <= 4_000_000


@needs_students
@needs_data
def test_students_tell_people_apart_whom_they_have_not_seen() -> None:
    folders = [p for p in sorted((DATA / "portraits").iterdir()) if is_held_out(p.name)][:12]
    assert len(folders) >= 8
    detector = load_face_detector(FaceDetectorSettings())
    crops, people = [], []
    for folder in folders:
        for path in sorted(folder.glob("*.jpg")):
            with Image.open(path) as opened:
                image = np.asarray(opened.convert("RGB"))
            landmarks = find_face(detector, image)
            if landmarks is not None:
                crops.append(warp_photo(image, estimate_similarity(landmarks, FACES_128), 128))
                people.append(folder.name)
    images = recognition_crop(to_images(np.stack(crops)))
    same = torch.tensor([[a == b for b in people] for a in people])
    upper = torch.triu(torch.ones_like(same), diagonal=1)
    for name in STUDENT_NAMES:
        with torch.no_grad():
            embeds = load_student(name)(images)
        cosines = embeds @ embeds.T
        assert cosines[same & upper].mean() > cosines[~same & upper].mean() + 0.2, name


@needs_data
def test_about_five_percent_of_the_people_are_held_out_and_no_training_reads_them() -> None:
    people = np.array([path.name for path in sorted((DATA / "portraits").iterdir())])
    kept = people[training_rows(people)]
    assert 0.92 < len(kept) / len(people) < 0.97
    assert not any(is_held_out(person) for person in kept)
