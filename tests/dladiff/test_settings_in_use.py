"""What is read of the settings while photos are protected, and what is refused since nothing is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import numpy as np
import pytest
import torch

from dladiff.config import MethodSettings, OwnPresetName, PresetName, Settings, preset_settings
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Image
from dladiff.models import ProtectionModels, load_models
from dladiff.protect import protect_photo_set
from dladiff.results import Photo
from dladiff.settings_in_use import (
    leaves,
    read_without_face_alone,
    refuse_unread,
    unread_settings,
)

ELSEWHERE = {"preset", "threads", "keep_metadata"}
"""A label, and what the pipeline reads when it starts a worker and writes a file."""
SHORT = {
    "loop.num_steps": 3,
    "loop.finishing_steps": 3,
    "surrogates.num_epochs": 1,
    "surrogates.step0_steps": 1,
}
FROM_A_COPY = {"surrogates.step0_steps", "surrogates.batch_size"}
"""A method of others that trains a surrogate reads them from settings of its own."""


def shortened(preset: PresetName) -> MethodSettings:
    method = preset_settings(preset)
    unread = unread_settings(method)
    return method.changed(*(f"{path}={few}" for path, few in SHORT.items() if path not in unread))


def sections(settings: Settings, prefix: str = "") -> Iterator[tuple[int, str]]:
    yield id(settings), prefix
    for name, value in settings:
        if isinstance(value, Settings):
            yield from sections(value, f"{prefix}{name}.")


@contextmanager
def recorded(method: MethodSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The paths of all leaves that somebody asks the method for, so far."""
    # Validated anew from values, so that no default is one object at two places.
    places, read = dict(sections(method)), set[str]()
    assert len(set(places)) == len(list(sections(method)))
    ask = object.__getattribute__

    def noted(self: Settings, name: str) -> object:
        if id(self) in places and name in type(self).model_fields:
            read.add(places[id(self)] + name)
        return ask(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Settings, "__getattribute__", noted)
        yield read


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*get_args(OwnPresetName), "facelock", "fsmg", "advdm"])
def test_what_photos_read_is_what_the_table_says(
    preset: PresetName, astronaut: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = shortened(preset)
    face = np.ascontiguousarray(astronaut[:192, 110:302])
    # A set of two, so that L_id has mixtures; a wall, on which there is no face.
    with_face = [Photo("one", face), Photo("two", np.ascontiguousarray(face[:, ::-1]))]
    wall = Photo("wall", np.tile(np.arange(64, 192, dtype=np.uint8)[:, None, None], (1, 128, 3)))
    with recorded(method, monkeypatch) as on_loading:
        models = load_models(method, "cpu")
    read = []
    for photos in (with_face, [wall]):
        with recorded(method, monkeypatch) as found:
            # The refusal itself looks at everything.
            monkeypatch.setattr("dladiff.protect.refuse_unread", lambda config: None)
            protect_photo_set(photos, [], models, method)
        read.append(found - on_loading)
    paths, unread = set(leaves(method)), set(unread_settings(method))
    by_somebody = on_loading | read[0] | read[1] | ELSEWHERE
    by_somebody |= FROM_A_COPY if preset == "fsmg" else set()
    # What nothing asks for is refused, and what a preset sets is asked for.
    assert paths - by_somebody <= unread
    assert chosen(preset) & unread == set()
    assert chosen(preset) <= by_somebody
    # What is said to act on photos without a face alone is not asked for on others.
    assert read_without_face_alone(method) & read[0] == set()
    # Refused for less than nobody asking: these are asked, and the answer changes nothing.
    assert unread & by_somebody <= {
        "autoencoders",
        "detector.pack",
        "handling",
        "surrogates.lora_rank",
        "surrogates.learning_rate",
        "surrogates.prompt",
        "surrogates.adaptation",
    }


def chosen(preset: PresetName) -> set[str]:
    """The leaves in which a preset differs from the defaults."""
    usual, values = leaves(MethodSettings()), leaves(preset_settings(preset))
    return {path for path, value in values.items() if usual.get(path) != value} - {"preset"}


@pytest.mark.parametrize(
    ("preset", "change", "meant"),
    [
        ("zero-shot", "loop.finishing_steps=9", "loop.num_steps"),
        ("zero-shot", "precision=float32", "no diffusion checkpoint"),
        ("zero-shot", "budget.floor_share=.5", "budgets are flat"),
        ("paper", "loop.finishing_steps=90", "surrogates.num_epochs"),
        ("paper", "budget.floor_share=.5", "budgets are flat"),
        ("paper", "budget.box_scale=1.3", "paper.crop"),
        ("balanced", "detector.pack=buffalo_l", "detector.kind=insightface"),
        ("balanced", "model.revision=abc1", "model.checkpoint"),
        ("mist", "loop.stop_cosine=0.3", "loop.num_steps"),
        ("mist", "surrogates.batch_size=2", "no surrogate learns"),
        ("mist", "target_cosine=.2", "loop.num_steps"),
    ],
)
def test_a_value_in_vain_is_refused_with_what_was_meant(
    preset: PresetName, change: str, meant: str
) -> None:
    method = preset_settings(preset).changed(change)
    path = change.partition("=")[0]
    with pytest.raises(ValueError, match=path) as caught:
        refuse_unread(method)
    assert meant in str(caught.value)


def test_a_set_of_photos_is_refused_before_any_work(detector: FaceDetector) -> None:
    models = ProtectionModels(torch.device("cpu"), detector, [], [], None, lpips=None)
    method = preset_settings("zero-shot").changed("loop.finishing_steps=90")
    with pytest.raises(ValueError, match=r"loop\.finishing_steps has no effect here"):
        protect_photo_set([], [], models, method)


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_a_preset_sets_nothing_in_vain(preset: PresetName) -> None:
    method = preset_settings(preset)
    refuse_unread(method)
    refuse_unread(method, chosen(preset))


def test_a_change_is_checked_like_all_values() -> None:
    method = preset_settings("fast").changed("loop.num_steps=7", "seed=3")
    assert (method.loop.num_steps, method.seed, method.preset) == (7, 3, "fast")
    for change in ("loop.num_steps=-3", "loop.steps=3", "seed.x=1", "seed", "paper.crop=1"):
        with pytest.raises(ValueError, match=r"num_steps|steps|seed|paper"):
            method.changed(change)
