"""Methods of other papers by name: through the library's door."""

import numpy as np
import pytest

import dladiff
from dladiff import methods
from dladiff.config import OtherMethodName
from dladiff.methods.others.by_name import BASELINES


@pytest.fixture(scope="module")
def face(astronaut: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(astronaut[:256, 110:334])


def test_every_method_of_others_is_a_preset() -> None:
    assert sorted(methods.NAMES) == sorted(BASELINES)
    for name in methods.NAMES:
        method = dladiff.preset_settings(name)
        assert (method.other, method.preset) == (name, name)
        in_loss = [encoder.name for encoder in method.encoders_in_loss]
        assert in_loss == (["sface"] if name == "facelock" else [])


@pytest.mark.parametrize("name", ["photoguard", "facelock"])
def test_it_protects_photos_with_and_without_a_face_within_our_budgets(
    name: OtherMethodName, face: np.ndarray
) -> None:
    method = dladiff.preset_settings(name).changed("loop.num_steps=3", "loop.step_size_levels=9")
    protector = dladiff.Protector(method)
    wall = np.tile(np.arange(64, 192, dtype=np.uint8)[:, None, None], (1, 128, 3))
    seen: list[tuple[str, float]] = []
    found = protector.protect([face, wall], on_progress=lambda *one: seen.append(one))
    portrait, empty = found.photos
    assert (portrait.status, portrait.stop_reason) == ("protected", "num_steps")
    assert portrait.max_change_levels is not None
    assert 9 <= portrait.max_change_levels <= 18
    assert portrait.max_change_levels_outside_faces is not None
    assert 1 <= portrait.max_change_levels_outside_faces <= 3
    assert (empty.status, empty.reason) == ("layer1_only", "no_face")
    assert empty.max_change_levels is not None
    assert 1 <= empty.max_change_levels <= 7
    # No target of ours is judged, so that the gate of a run does not refuse what has no such aim.
    assert portrait.target_met is None
    held_out = {one.encoder: one.held_out for one in portrait.identity_cosines}
    assert held_out == {"sface": name != "facelock", "dlib": True}
    assert found.cost.vae_passes > 0
    assert ("layer1", 1.0) in seen


def test_own_recognisers_only_judge_a_method_of_others() -> None:
    from torch import nn

    mine = dladiff.IdentityEncoder("mine", nn.Flatten())
    with pytest.raises(ValueError, match="held_out=True"):
        dladiff.Protector("mist", recognisers=[mine])
