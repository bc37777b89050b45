"""Which encoders a method reads, by its settings alone."""

import pytest
from pydantic import ValidationError

from dladiff.config import MethodSettings, PresetName, preset_settings


def names(method: MethodSettings) -> list[str]:
    return [encoder.name for encoder in method.encoders_in_loss]


@pytest.mark.parametrize("preset", ["balanced", "discreet", "strong", "fast"])
def test_students_of_the_family_stand_in_the_likeness_beside_layer_2(preset: PresetName) -> None:
    method = preset_settings(preset)
    assert [encoder.name for encoder in method.layer2.encoders] == ["sface", "dlib"]
    assert names(method) == ["sface", "dlib", "plain", "mobile"]  # convnext judges


@pytest.mark.parametrize(
    ("preset", "expected"), [("paper", ["sface"]), ("zero-shot", ["sface", "dlib"])]
)
def test_methods_without_likeness_have_none_of_its_encoders(
    preset: PresetName, expected: list[str]
) -> None:
    method = preset_settings(preset)
    assert names(method) == expected
    assert method.more_likeness_encoders == ()


def test_an_encoder_that_layer_2_holds_out_is_in_no_loss() -> None:
    encoders = [{"name": "dlib", "kind": "dlib_resnet"}, {"name": "plain", "kind": "student"}]
    encoders[1]["held_out"] = True  # type: ignore[assignment]
    method = MethodSettings.model_validate({"layer2": {"encoders": encoders}})
    assert names(method) == ["dlib", "mobile"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ([{"name": "a", "kind": "sface"}] * 2, "names must differ"),
        ([{"name": "a", "kind": "sface", "held_out": True}], "belongs to layer2.encoders"),
        ([{"name": "dlib", "kind": "sface"}], "is another encoder in layer2.encoders"),
    ],
)
def test_ambiguous_encoders_are_refused_with_the_reason(
    more: list[dict[str, object]], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        MethodSettings.model_validate({"layer1": {"likeness": {"more_encoders": more}}})
