"""Which encoders a method reads, by its settings alone."""

import pytest
from pydantic import ValidationError

from dladiff.config import MethodSettings, PresetName, preset_settings


def names(method: MethodSettings) -> list[str]:
    return [encoder.name for encoder in method.encoders_in_loss]


@pytest.mark.parametrize("preset", ["balanced", "discreet", "strong", "fast"])
def test_students_of_the_family_stand_in_the_likeness_beside_layer_2(preset: PresetName) -> None:
    method = preset_settings(preset)
    assert [encoder.name for encoder in method.reported_encoders] == ["sface", "dlib"]
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


def test_a_judge_is_in_no_loss() -> None:
    recognisers = [
        {"name": "dlib", "kind": "dlib_resnet"},
        {"name": "plain", "kind": "student", "role": "judge"},
        {"name": "mobile", "kind": "student", "role": "beside"},
    ]
    method = MethodSettings.model_validate({"recognisers": recognisers})
    assert names(method) == ["dlib", "mobile"]
    assert [one.name for one in method.reported_encoders] == ["dlib", "plain"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"recognisers": [{"name": "a", "kind": "sface"}] * 2}, "names must differ"),
        (
            {"recognisers": [{"name": "a", "kind": "sface", "role": "judge"}]},
            "at least one must have the role lead",
        ),
        (
            {"recognisers": [{"name": "a", "kind": "sface", "held_out": True}]},
            "held_out is now role",
        ),
        ({"layer2": {"encoders": []}}, "layer2.encoders is now recognisers"),
        (
            {"layer1": {"likeness": {"more_encoders": []}}},
            "more_encoders is now recognisers, with `role: beside`",
        ),
    ],
)
def test_ambiguous_recognisers_and_names_of_before_are_refused_with_the_remedy(
    values: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        MethodSettings.model_validate(values)
